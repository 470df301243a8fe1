# Each target does all its own set-up: missing Debian packages (asking sudo when not root) and a
# virtual environment in .venv. Nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What test/run needs beside Python: programs and the Debian package that holds each.
TEST_PROGRAMS := git:git strace:strace nix-build:nix-bin qemu-img:qemu-utils mkfs.ext4:e2fsprogs \
	mkfs.xfs:xfsprogs xz:xz-utils losetup:mount unshare:util-linux systemd-analyze:systemd \
	bwrap:bubblewrap newuidmap:uidmap mksquashfs:squashfs-tools zstd:zstd sfdisk:fdisk \
	openssl:openssl setpriv:util-linux ip:iproute2 apt-ftparchive:apt-utils dpkg-deb:dpkg \
	gpg:gpg gpg-agent:gpg-agent gpgv:gpgv setcap:libcap2-bin setfacl:acl bzip2:bzip2 lz4:lz4 \
	taskset:util-linux \
	mmdebstrap:mmdebstrap busybox:busybox-static faketime:faketime dnsmasq:dnsmasq-base \
	curl:curl s6-svscan:s6 execlineb:execline
DEMO_PROGRAMS := bwrap:bubblewrap newuidmap:uidmap unshare:util-linux mksquashfs:squashfs-tools \
	mmdebstrap:mmdebstrap apt-ftparchive:apt-utils zstd:zstd

.PHONY: demo clean-demo test test-slow check lint bench

demo: $(VENV)/.installed ## a cache, a killed run, and Debian from a definition to a guest that is ready
	@.ci/packages $(DEMO_PROGRAMS)
	@.ci/incus
	@$(BIN)/python examples/demo.py
	@$(BIN)/python examples/boot.py examples/debian-12.yaml

clean-demo: ## undo `make demo`; the store's files can belong to subordinate ids
	@if [ -x $(BIN)/python ]; then $(BIN)/python examples/boot.py --clean; fi
	@if [ -d demo/store ] && [ -x $(BIN)/osbuild-pika ]; then \
		OSBUILD_PIKA_RUNS=demo/runs $(BIN)/osbuild-pika gc --store demo/store --max-size 0; fi
	rm -rf demo

test: $(VENV)/.installed lint ## everything that ends in minutes; root runs more of it
	@.ci/packages $(TEST_PROGRAMS)
	@[ "$$(id -u)" != 0 ] || .ci/incus
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/.installed ## long crash loops
	@.ci/packages $(TEST_PROGRAMS)
	$(BIN)/pytest -m slow

check: $(VENV)/.installed lint ## what a commit must pass: no root, under 60 s
	.ci/in-memory $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" \
		test/mod test/src

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed ## measure the lifecycle, its service, and builds as root; --json writes all figures
	$(BIN)/python bench/lifecycle.py
	$(BIN)/python bench/lifecycle_service.py
	$(BIN)/python bench/engine.py
	$(BIN)/python bench/image.py

$(VENV)/.installed: setup.cfg pyproject.toml bin/osbuild-pika
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/packages -:python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
