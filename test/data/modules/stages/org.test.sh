#!/usr/bin/python3
"""Runs a shell script in the tree: what a test wants a stage to do."""

import json
import os

with open("/run/osbuild/api/arguments", encoding="utf-8") as file:
    given = json.load(file)
os.chdir(given["tree"])
os.execv("/bin/sh", ["sh", "-euc", given["options"]["script"]])
