# make demo   the main job, start to end, on this machine
# make test   the tests; make check  the style, types and structure; make bench  the benchmarks
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-fast test-ray check bench bench-learners bench-gate bench-policies bench-data bench-chaos bench-hostile docs fmt clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/online-learner demo $(ARGS)

test: test-fast test-ray

# What needs no Ray, in two processes; a selection may leave nothing of it, which is exit code 5.
test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray" $(ARGS) || [ $$? = 5 ]

# What does, one after the other, since they share clusters.
test-ray: $(READY)
	$(BIN)/python -m pytest -m ray $(ARGS) || [ $$? = 5 ]

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

bench-learners: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks learners $(ARGS)

bench-gate: $(READY)
	$(BIN)/python -m benchmarks gate $(ARGS)

bench-policies: $(READY)
	$(BIN)/python -m benchmarks policies $(ARGS)

bench-data: $(READY)
	$(BIN)/python -m benchmarks data $(ARGS)

bench-chaos: $(READY)
	$(BIN)/python -m benchmarks chaos $(ARGS)

bench-hostile: $(READY)
	$(BIN)/python -m benchmarks hostile $(ARGS)

docs: $(READY)
	$(BIN)/python -m policies.table > docs/kinds.md
	PYTHONPATH=tests:. $(BIN)/python -m the_examples
	$(BIN)/python -m serve_app.telemetry.page > docs/metrics.md

fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
