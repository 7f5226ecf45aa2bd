#!/bin/sh
# Make the documentation, HTML and man pages, in doc/build/, and the release
# notes, HTML, in releasenotes/build/; a warning is an error, and so is a link
# inside that leads nowhere. Sets up what it needs in .venv/.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
make_venv docs -r doc/requirements.txt
for builder in html man; do
    "$venv/bin/sphinx-build" -q -W --keep-going -d doc/build/doctrees \
        -b $builder doc/source doc/build/$builder
done
"$venv/bin/python" doc/links.py doc/build/html
# What is in which release, reno asks git.
[ ! -e .git ] || "$venv/bin/sphinx-build" -q -W --keep-going \
    -d releasenotes/build/doctrees -b html releasenotes/source \
    releasenotes/build/html
