"""One short row of each format, as a line of JSON: what `dataprep formats` prints and the tests read back."""

EXAMPLES = {
    "openai": '{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}',
    "turns": '{"dialog": [{"speaker": "user", "text": "Hello"}, {"speaker": "assistant", "text": "Hi"}]}',
    "turn-pairs": '{"conversation": [{"human": "Hello", "assistant": "Hi"}]}',
    "alternating": '{"data": ["Hello", "Hi"]}',
    "parallel": '{"input": ["Hello"], "output": ["Hi"]}',
    "alpaca": '{"instruction": "Hello", "input": "", "output": "Hi"}',
    "prompt-response": '{"prompt": "Hello", "response": "Hi", "history": []}',
    "question-answer": '{"question": "Hello", "answer": "Hi"}',
    "preference": '{"prompt": "Hello", "chosen": [{"role": "assistant", "content": "Hi"}]}',
    "oasst": '{"prompt": {"role": "prompter", "text": "Hello", "replies": [{"role": "assistant", "text": "Hi"}]}}',
    "chatgpt": '{"mapping": {"a": {"message": {"author": {"role": "user"}, "content": {"parts": ["Hello"]}}}, '
    '"b": {"parent": "a", "message": {"author": {"role": "assistant"}, "content": {"parts": ["Hi"]}}}}, '
    '"current_node": "b"}',
    "xlam": '{"query": "What time is it?", "tools": [{"name": "now"}], "answers": [{"name": "now", "arguments": {}}]}',
    "hh": r'{"chosen": "\n\nHuman: Hello\n\nAssistant: Hi"}',
    "marked": r'{"text": "User: Hello\nAssistant: Hi"}',
    "text": '{"text": "A page."}',
}
