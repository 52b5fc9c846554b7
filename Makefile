# Processes of one thread each, and one more than cores, for tests of Ray wait much; more than four would
# want more memory than most machines have.
WORKERS = $(shell echo $$(( $$(nproc) + 1 )))
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist worksteal

.PHONY: setup demo smoke test test-all shapes proof lint bench constraints clean

setup:            ## all that sweeps need, into .venv
	./setup.sh

demo: setup       ## circuits of a real language model for three tasks; ends with a page
	.venv/bin/edgesweep run demo

smoke: setup      ## a tiny random model through Ray, under 30 s
	.venv/bin/edgesweep run smoke

test:             ## lint, types, import contracts, the quick tests: a quarter to half an hour on two cores
	./setup.sh dev
	$(MAKE) lint
	$(PYTEST)

ENGINE_TESTS = $(addprefix tests/,evaluation features graph methods model network)

test-all:         ## the tests that `make test` leaves out
	./setup.sh dev
	$(PYTEST) -m "slow and not proof"

shapes:           ## the engine's tests, with the shapes in signatures checked: by hand
	./setup.sh dev
	$(PYTEST) --shapes $(ENGINE_TESTS)

proof:            ## what takes minutes a test: a hundred drivers killed before any operation, every file hurt in every way: by hand
	./setup.sh dev
	$(PYTEST) -s -m proof

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: setup      ## ratios of cost, one JSON line each
	.venv/bin/python -m benchmarks.attribution
	.venv/bin/python -m benchmarks.engine
	.venv/bin/python -m benchmarks.nnsight_overhead

# A constraints file installs nothing: the CUDA packages in it are for machines that take PyPI's torch.
# torch itself stays as it is pinned; change it by hand, then run this.
constraints:      ## pin all packages that pyproject.toml asks for; UPGRADE=--upgrade takes the newest
	python3 -m venv .venv/uv && .venv/uv/bin/python -m pip install --quiet uv
	grep -o '^torch==[0-9.]*' constraints.txt | UV_CUSTOM_COMPILE_COMMAND='make constraints' \
	  .venv/uv/bin/uv pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
	  --no-annotate --quiet $(UPGRADE) --output-file constraints.txt

clean:
	rm -rf .venv runs
