"""Packaging lives in pyproject.toml; this file is what Beam's `--setup_file` needs to send the workers this package."""

from setuptools import setup

setup()
