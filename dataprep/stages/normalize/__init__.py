"""Rows of any chat format in, conversations out, in columns; rows that can't become one leave under a reason.

Text is never changed, save for what belongs to a format and not to the text (marks, the newline Alpaca joins by).
"""
