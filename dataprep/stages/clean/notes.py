"""What the steps did to one conversation, written down as they go: names of steps, each once, in order."""


class Notes:
    """Names of steps that changed a conversation, and of those that found something and left it."""

    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.seen: dict[str, None] = {}

    def change(self, step: str) -> None:
        """Write down that a step changed the conversation."""
        self.changed[step] = None

    def see(self, step: str) -> None:
        """Write down that a step found something and left it."""
        self.seen[step] = None
