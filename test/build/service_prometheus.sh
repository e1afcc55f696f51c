#!/bin/sh
# What docs/examples/template-service tells Prometheus is what was done: the configuration and the metrics are as
# promtool wants them, and every expression of the dashboard, asked of a Prometheus that has scraped the daemon, gives
# numbers that agree with the requests that service_prometheus.py made.
. test/build/common.inc
needs python3 prometheus promtool
needs_service

build_example template-service
example=docs/examples/template-service
promtool check config $example/prometheus.yml || fail "promtool does not like prometheus.yml"
timeout 300 python3 test/build/service_prometheus.py build/template-service/template-service $example "$scratch" ||
    fail "see above"
