#!/bin/sh
# Runs peers/Caffeine.java as the driver that make has built beside this file.
exec java -Xms2g -Xmx2g -cp "$0.classes:@JAR@" Caffeine "$@"
