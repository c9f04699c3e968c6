"""What stands inside texts: speaker marks, tool calls, reasoning, typed parts; each in its own field afterwards."""
