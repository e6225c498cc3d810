# Thin front for people; the build itself is Meson's (see meson.build). Override BUILD or
# MESON_ARGS to build elsewhere or differently: make build BUILD=/tmp/b MESON_ARGS=-Db_sanitize=address
BUILD ?= build
MESON_ARGS ?=
SETUP := scripts/setup.sh

.PHONY: all build demo demo-vtest test bench clean
all: build

build:
	@$(SETUP) build
	@BUILD="$(BUILD)" scripts/build.sh $(MESON_ARGS)

demo:
	@$(SETUP) demo
	@BUILD="$(BUILD)" scripts/build.sh $(MESON_ARGS)
	@BUILD="$(BUILD)" scripts/demo.sh

demo-vtest:
	@$(SETUP) demo-vtest
	@BUILD="$(BUILD)" scripts/build.sh $(MESON_ARGS)
	@BUILD="$(BUILD)" scripts/demo-vtest.sh

test:
	@$(SETUP) test
	@BUILD="$(BUILD)" scripts/test.sh

bench:
	@$(SETUP) bench
	@BUILD="$(BUILD)" scripts/build.sh $(MESON_ARGS)
	@bench/run.py --build "$(BUILD)"
	@PV_BUILD="$(BUILD)" bench/vm.py
	@PV_BUILD="$(BUILD)" bench/display.py
	@PV_BUILD="$(BUILD)" bench/desktop.py

# The cache (~/.cache/pearvisor: headers and Debian roots) stays; it is safe to delete by hand.
clean:
	rm -rf "$(BUILD)"
