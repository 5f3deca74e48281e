"python -m nanodetr, and what the command nanodetr runs: Ctrl-C is answered from the first moment, while torch is still being imported."
import os
import signal
import sys


def main() -> int:
    "The command line; see nanodetr.cli."
    def stop(number, frame):
        os.write(2, b"\nnanodetr: interrupted\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    from nanodetr.cli import main as command

    signal.signal(signal.SIGINT, before)
    return command()


if __name__ == "__main__": sys.exit(main())
