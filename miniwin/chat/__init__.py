"""Chats: messages become the text that a model was trained on, and the model answers them.

conversation       what was said, and the answers of a model
context            the tokens of a chat in a cache, of which only new ones are read
dialog             a chat in a terminal or a script
format             the chat format of a model: its template, and the tokens that end an answer
rendering          a template is rendered in a process of its own, within limits
template_process   the program of that process
"""

from miniwin.chat.format import ChatFormat, read_chat_format

__all__ = ["ChatFormat", "read_chat_format"]
