"""The changelog's table of renamed keys: every new name is known, no old one is."""

import re
from pathlib import Path

import pytest

from smpo.core.errors import SmPOError
