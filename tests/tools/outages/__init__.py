"""Test one request against every pair of service and fault, over the wire, through the real functions.

cells.py    the pairs, and the expected result of each
matrix.py   runs them in parallel, each with its own worker and fault proxy, then removes the faults

python -m tools.outages       prints the matrix in Markdown
"""
