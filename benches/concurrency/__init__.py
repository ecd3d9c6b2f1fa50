"""What `make concurrency` measures, one module for each measurement, and what makes a record and a page of it.

    python3 benches/concurrency --help

A measurement is a module of this package, named in `measurement.NAMES`, that has

- `TITLE`: its heading on the page;
- `ABOUT`: what is done and what the figures mean, a paragraph or two for the page;
- `SECONDS`: for each model that it is made with, about how many seconds it takes on two cores;
- `measure(bench)`: measures, in a process of its own, and returns the samples as an object for JSON;
- `rows(found)`: the figures and their targets, from what `measure` returned.

Only `measure` may need phicandle: the page is written and checked where it is not installed.
"""
