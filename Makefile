# Voxspool: `make demo` shows everything, `make test` proves it, `make check` is the quick loop.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
CONFIG ?= config.yaml
JOBS   ?= 2
# One thread of torch for each process: more would wait for one another.
XDIST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

.PHONY: demo run gpu test test-full check format bench bench-carry bench-drops crashes soak fuzz peers clean install-service uninstall-service

demo: $(VENV)/core.done
	$(PY) daemon.py --config $(CONFIG) submit examples/hello.txt
	$(PY) daemon.py --config $(CONFIG) --once

run: $(VENV)/core.done
	$(PY) daemon.py run --config $(CONFIG)

# Every test that needs no GPU, the models' own on small random checkpoints, file by file in JOBS processes.
test: $(VENV)/dev.done $(VENV)/gpu.done
	VOXSPOOL_TEST_MODELS=1 $(XDIST) -m "not full"

# Full-size random weights: 8 GB of memory, half an hour on two cores.
test-full: $(VENV)/dev.done $(VENV)/gpu.done
	VOXSPOOL_TEST_MODELS=1 $(PY) -m pytest tests/models -m full

# The packages of Chatterbox and Whisper, 6 GB; `daemon.py fetch-models` brings the models.
gpu: $(VENV)/gpu.done

# Real Syncthing, sshfs, rclone and Samba, from Debian's packages (.ci/peers installs them); some ten minutes.
peers: $(VENV)/dev.done
	$(PY) -m pytest tests/peers

# Format, lint, types, architecture, unit tests.
check: $(VENV)/dev.done
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(XDIST) tests/unit tests/contract -m "not slow"

format: $(VENV)/dev.done
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/core.done
	$(PY) -m bench

# 200 SIGKILLs of the whole process tree at random moments of a mixed load; some ten minutes.
crashes: $(VENV)/core.done
	$(PY) -m bench.crashes

# An hour of drops, edits, pauses, reloads and worker deaths: does anything grow? Draws docs/soak.svg.
soak: $(VENV)/core.done
	$(PY) -m bench.soak --svg docs/soak.svg

# 120,000 hostile job files, texts, recordings and names; some twenty minutes. FUZZ="--inputs 5000", "--seconds 60",
# "--target 'job file'"; what the coverage engine learnt is kept in .fuzz/, and the next run goes on from there.
fuzz: $(VENV)/fuzz.done
	$(PY) -m tests.fuzz $(FUZZ)

# What bench.fast needs on a machine with PyTorch and transformers alone, to be copied along (50 MB); as in requirements.txt.
CARRIED := chatterbox-tts resemble-perth s3tokenizer diffusers conformer einops omegaconf pyloudnorm loguru
bench-carry: $(VENV)/gpu.done
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --upgrade --target .carried \
		$$($(PY) -c "import sys; from importlib.metadata import version; print(*(f'{n}=={version(n)}' for n in sys.argv[1:]))" $(CARRIED))

# 10,000 one-line texts dropped at once; takes the better part of an hour on two cores.
bench-drops: $(VENV)/core.done
	$(PY) -m bench.drops

# As root: a systemd service in PREFIX (/opt/voxspool), docs/service.md. DESTDIR puts it below another folder.
install-service:
	sh scripts/install-service

uninstall-service:
	sh scripts/uninstall-service

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .fuzz bench/out

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Voxspool needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV); sh scripts/install-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/core.done: requirements-core.txt $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-core.txt
	touch $@

$(VENV)/dev.done: requirements-dev.txt requirements-core.txt $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/core.done

$(VENV)/gpu.done: requirements.txt requirements-core.txt $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@ $(VENV)/core.done

$(VENV)/fuzz.done: requirements-fuzz.txt $(VENV)/dev.done
	$(PY) -m pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements-fuzz.txt \
		|| echo "There is no wheel of atheris for this machine: Hypothesis goes on alone."
	touch $@
