"""The claims of the HOPE paper as experiments: numbers, a picture, a table and a verdict that follows from the numbers.

Source of the claims: Yu, Mahoney, Erichson, ICLR 2025 (arXiv 2405.13975).
"""
