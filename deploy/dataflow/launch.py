"""What a Flex Template starts: parameters of the template → `leia-beam build … --runner dataflow`."""

import sys

from leia_beam.cli import main
from pipelines.dataflow_template import build_command

if __name__ == "__main__":
    sys.exit(main(build_command(sys.argv[1:])))
