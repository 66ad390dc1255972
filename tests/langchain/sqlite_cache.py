"""A cache in a file, as LangChain's own SQLiteCache is one, and a program that uses it.

Run with the file's path, it asks the same every time and prints how often the model was asked.
"""

import json
import sqlite3
import sys

from langchain_core.caches import BaseCache
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage

from uq_llm_integrations import (
    BestOfN,
    ChatVLLMUncertainty,
    ScriptedBackend,
    VLLMUncertaintyLLM,
    score,
)
from uq_llm_integrations.strategies.conditions import Custom


class SQLiteCache(BaseCache):
    """Keeps answers in a table of a SQLite file."""

    def __init__(self, path):
        self.rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.rows.execute(
            "CREATE TABLE IF NOT EXISTS answers (prompt TEXT, llm TEXT, answer TEXT, "
            "PRIMARY KEY (prompt, llm))"
        )

    def lookup(self, prompt, llm_string):
        found = self.rows.execute(
            "SELECT answer FROM answers WHERE prompt = ? AND llm = ?", (prompt, llm_string)
        ).fetchone()
        return (
            [loads(one, allowed_objects="core") for one in json.loads(found[0])] if found else None
        )

    def update(self, prompt, llm_string, return_val):
        answer = json.dumps([dumps(one) for one in return_val])
        self.rows.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (prompt, llm_string, answer)
        )

    def clear(self, **kwargs):
        self.rows.execute("DELETE FROM answers")


def conversation(chat: ChatVLLMUncertainty, options: dict) -> AIMessage:
    """Ask twice; the second question comes with the first answer and its scores."""
    messages = [HumanMessage("What is the capital of France?")]
    messages.append(chat.invoke(messages, **options))
    return chat.invoke([*messages, HumanMessage("Sure?")], **options)


def main(path: str) -> None:
    limit = len(path)
    backend = ScriptedBackend(["Paris.", "Yes."])
    given = {
        "backend": backend,
        "cache": SQLiteCache(path),
        "strategy": BestOfN(2, by="majority", answer=lambda text: text.strip(".")),
        "uncertain_when": (score("entropy") > 1 / 3)
        & Custom(lambda r: len(r.text) > limit, "long"),
    }
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    last = conversation(ChatVLLMUncertainty(**given), {"tools": tools, "top_p": 0.5})
    said = VLLMUncertaintyLLM(**given).invoke("The capital of France is", top_p=0.9)
    score_of_last = last.response_metadata["uncertainty"]["scores"]["entropy"]
    json.dump([len(backend.requests), last.content, said, score_of_last], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
