# How Convolutional Networks See: every command of the project. `make help` lists them.
# Needs Python 3.11 or newer and git; the first command installs everything else into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
CHAPTER ?=
SPECIMEN ?= imagenet
SOLUTIONS ?= yes
# Two at a time, each with one thread: two with two each would wait for one another most of the time.
TWO := OMP_NUM_THREADS=1 $(RUN)python -m pytest -n 2 --dist loadfile
CHECK := OMP_NUM_THREADS=1 $(RUN)python book/_make/figures.py --check --jobs 2
ON_SHAPES := LESSONS_SPECIMEN=shapes LESSONS_STRICT=1 $(TWO) --nbval-lax --nbval-cell-timeout=120

.DEFAULT_GOAL := help
.PHONY: help book pdf test lint units notebooks slow chapters check-student lab figures student bench oracles clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Installs once, and again only when one of these files changes.
$(VENV)/installed: pyproject.toml constraints.txt book/_make/install.sh
	@bash book/_make/install.sh $(VENV) "$(PYTHON)" '.[book,grade,peers,test]' constraints.txt
	@touch $@

book: $(VENV)/installed  ## build the book into _build/html
	@$(RUN)jupyter-book build . --all -W -n --keep-going -q
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

# Needs Chromium or Google Chrome. On Debian and Ubuntu: apt-get install chromium fonts-dejavu-core
pdf: $(VENV)/installed  ## print the book just built into _build/course.pdf (needs Chromium; SOLUTIONS=no leaves them out)
	@$(RUN)python book/_make/pdf.py $(if $(filter no,$(SOLUTIONS)),--no-solutions)

test: lint book units notebooks  ## lint, build the book strictly, run all tests and the chapters on shapes

lint: $(VENV)/installed  ## ruff and mypy
	@$(RUN)ruff check . && $(RUN)ruff format --check --quiet . && $(RUN)mypy
	@$(RUN)ruff format --check --quiet --line-length 80 book/*.ipynb

units: book  ## the tests, on the book just built (those in a browser need Chromium)
	@LESSONS_BOOK="$(CURDIR)/_build/html" $(TWO) --no-loadscope-reorder tests

notebooks: $(VENV)/installed  ## the chapters on the specimen shapes
	@$(ON_SHAPES) book

chapters: $(VENV)/installed  ## the chapters on SPECIMEN=imagenet, storing nothing
	@$(CHECK) --specimen "$(SPECIMEN)"

check-student: student  ## run the students' edition on SPECIMEN=imagenet
	@$(CHECK) --specimen "$(SPECIMEN)" --folder build/student

slow: book  ## the tests that take minutes: the pages in a browser, a case from its training to its repair
	@LESSONS_BOOK="$(CURDIR)/_build/html" $(TWO) --dist load -m slow tests

lab: $(VENV)/installed  ## open JupyterLab on the chapters
	@$(RUN)jupyter lab --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate book

figures: $(VENV)/installed  ## execute the chapters that changed and store what they show (CHAPTER=05 for one)
	@$(RUN)python book/_make/figures.py --chapter "$(CHAPTER)"

student: $(VENV)/installed  ## write the edition without solutions into build/student
	@$(RUN)python book/_make/student.py

bench: $(VENV)/installed $(VENV)-oracles/installed  ## our methods beside the peers': ratios measured side by side
	@$(RUN)python tests/bench.py
	@$(RUN)python tests/bench_explanations.py
	@$(RUN)python tests/bench_training.py
	@$(RUN)python tests/bench_optimizers.py
	@PYTHONPATH=tests $(VENV)-oracles/bin/python tests/oracles/bench_lucent.py
	@PYTHONPATH=tests $(VENV)-oracles/bin/python tests/oracles/bench_fooling.py

# An environment of its own: these libraries pin old versions of what the book needs new.
$(VENV)-oracles/installed: pyproject.toml tests/oracles/requirements.txt book/_make/install.sh
	@bash book/_make/install.sh $(VENV)-oracles "$(PYTHON)" . tests/oracles/requirements.txt
	@touch $@

oracles: $(VENV)-oracles/installed  ## compare with the libraries that fight the book's versions
	@$(VENV)-oracles/bin/python -m pytest tests/oracles

clean:  ## remove what was built; keep the environments
	@rm -rf _build build .pytest_cache .mypy_cache .ruff_cache
