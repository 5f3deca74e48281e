"python -m nanodetr: the same as the command nanodetr."
import sys

from nanodetr.cli import main

sys.exit(main())
