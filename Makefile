# Each target is one command of dev.py, which needs nothing but Python 3.11.
PYTHON ?= python3

.PHONY: demo test slow long system docs site check audit notes dist lock lowest optimum ray all
demo test slow long system docs site check audit notes dist lock lowest optimum ray all:
	$(PYTHON) dev.py $@
