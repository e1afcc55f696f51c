#!/bin/sh
# The live page of docs/examples/template-service in Chromium: a stampede is started and its numbers are those of the
# answer; charts and flights; an end of the daemon is told, its return seen; nobody else is asked anything, the console
# has no error; two sizes, light and dark. PICTURES=DIRECTORY keeps screenshots.
. test/build/common.inc
needs python3 chromium chromedriver
needs_service

build_example template-service
timeout 300 python3 test/build/service_page.py build/template-service/template-service ${PICTURES:+"$PICTURES"} ||
    fail "the live page: see above"
