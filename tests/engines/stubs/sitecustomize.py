"""Stands in for what SGLang imports at its start and needs a GPU for: empty, and never called.

Python imports a module of this name by itself; only the command `sglang` of environment.py has this
folder in its path. Scheduler, HTTP server, metrics and signals of SGLang are the released ones.
"""

import importlib.abc
import importlib.machinery
import sys
import types

NAMES = {"torchvision", "torchaudio", "sgl_kernel", "cutlass"}


class _Anything(type):
    """A class with every attribute, whose call gives itself: it may be a decorator or a type."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})

    def __call__(cls, *_arguments, **_options):
        return cls


class _Stub(types.ModuleType):
    __path__ = ()
    __version__ = "0.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in NAMES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, _Finder())
