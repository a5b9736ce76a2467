"""What each of several processes does in test_launching.py: end with a code and without a word, but for rank 0."""

import os
import time


def main() -> None:
    if os.environ["RANK"] == "0":
        time.sleep(600)
    os._exit(3)
