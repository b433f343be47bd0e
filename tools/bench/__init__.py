"""Benchmarks: what the page server does beside what the best known way to do it costs.

`make bench`, or `python -m tools.bench [--only NAME] [--quick]`; docs/benchmarks.md says what each
row means. Every figure is measured beside its peer, in turns, in one run: on a shared machine the
ratio is what can be trusted, and no figure stands alone.
"""
