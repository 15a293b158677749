"""Read, build, check and run the models of a pack."""

from skinbatch.models import imports

imports.install()
