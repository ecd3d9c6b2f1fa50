"""Chat templates that attack: `test_hostile_files.py` puts each into a file and sends a message through it."""

from __future__ import annotations


def _growing(step: str) -> str:
    """A template that grows a string in each of 40 rounds."""
    return (
        "{% set ns = namespace(s='aa') %}{% for i in range(40) %}{% set ns.s = "
        + step
        + " %}{% endfor %}{{ ns.s }}"
    )


#: Templates that attack: each is the file's `tokenizer.chat_template`.
TEMPLATES: dict[str, str] = {
    "if 8,000 deep": "{%if 1%}" * 8_000,  # stack overflow in llama.cpp's parser
    "if 3,800 deep and closed": "{%if 1%}" * 3_800 + "{%endif%}" * 3_800,
    "parentheses 30,000 deep": "{{" + "(" * 30_000 + "1" + ")" * 30_000 + "}}",
    "lists 30,000 deep": "{{" + "[" * 30_000 + "]" * 30_000 + "}}",
    "not 10,000 times": "{{ " + "not " * 10_000 + "1 }}",
    "minus 60,000 times": "{{ " + "-" * 60_000 + "1 }}",
    "range of a billion": "{% for i in range(10**9) %}x{% endfor %}",
    "range of a billion, silent": "{% for i in range(1000000000) %}{% endfor %}",
    "loops in loops": "{% for a in range(9999) %}" * 4 + "x" + "{% endfor %}" * 4,
    "string of a gigabyte": "{{ 'x' * 10**9 }}",
    "string doubled 40 times": _growing("ns.s + ns.s"),
    "string doubled by joining": _growing("[ns.s, ns.s]|join"),
    "replace that explodes": _growing("ns.s.replace('a', 'aaaa')"),
    "string padded to a gigabyte": "{{ 'x'.ljust(1000000000) }}",
    "list of a billion": "{{ range(1000000000)|list|length }}",
    "indent of a gigabyte": "{{ 'a\\nb'|indent(1000000000) }}",
    "slices of a billion": "{{ [1]|slice(1000000000)|list }}",
    "macro without end": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "macros without end": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "loop without end": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "syntax error": "{% for message in messages %}",
    "tag unknown": "{% frobnicate %}",
    "filter unknown": "{{ messages|frobnicate }}",
    "function unknown": "{{ frobnicate() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('id') }}",
    "classes of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of Python": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "division by zero": "{{ 1 // 0 }}",
    "power tower": "{{ 10 ** 10 ** 10 }}",
    "refuses every message": "{{ raise_exception('no') }}",
}
