# Each target is one command of dev.py, which needs nothing but Python 3.11.
PYTHON ?= python3

.PHONY: demo test slow docs check audit all
demo test slow docs check audit all:
	$(PYTHON) dev.py $@
