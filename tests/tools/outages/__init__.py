"""What becomes of one request when one service fails in one way: every pair of them, over the wire, through the real functions.

cells.py    the pairs, and how each must end
matrix.py   plays them side by side, each with a worker and a fault proxy of its own, and then lets all of them heal

python -m tools.outages       prints the matrix in Markdown
"""
