#!/bin/sh
# A stage that reports for a while, and keeps in its tree how far it came.
cd /run/osbuild/tree
# It succeeds without a device, too, which is gone when the service is.
report() {
    python3 -m osbuild_pika.inside.report "$@" && [ -e /dev/osbuild-pika-lifecycle ]
}
echo connecting >>marks
report event hello && echo spoken >>marks
sleep 0.1
report progress 1 2 --unit steps
sleep 0.1
echo resulting >>marks
report result completed "all said" && echo resulted >>marks
sleep 0.05
