.PHONY: setup demo test lint smoke proof bench clean

setup:            ## all that sweeps need, into .venv
	./setup.sh

demo: setup       ## circuits of a real language model for three tasks; ends with a page
	.venv/bin/edgesweep run demo

smoke: setup      ## a tiny random model through Ray, under 30 s
	.venv/bin/edgesweep run smoke

test:             ## lint, types, import contracts, tests
	./setup.sh dev
	$(MAKE) lint
	.venv/bin/python -m pytest -q

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

proof:            ## the slow proofs
	./setup.sh dev
	.venv/bin/python -m pytest -q -m slow

bench: setup      ## ratios of cost, one JSON line each
	.venv/bin/python -m benchmarks.attribution
	.venv/bin/python -m benchmarks.engine
	.venv/bin/python -m benchmarks.nnsight_overhead

clean:
	rm -rf .venv runs
