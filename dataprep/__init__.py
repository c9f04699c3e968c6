"""Raw chat data to conversations, and conversations to packed token shards."""
