#!/bin/sh
# docs/TUTORIAL.md, as it stands: each piece of C is written to the file that it is named after, each command of a
# console is run in the order of the page, by one shell, and must say what the page says.
. test/build/common.inc
needs bash curl python3 mkfifo
needs_service

LIBASIDE=$PWD
export LIBASIDE
build_example template-service # before others build it
unset MAKEFLAGS MFLAGS MAKELEVEL
python3 test/build/tutorial.py docs/TUTORIAL.md "$scratch"
