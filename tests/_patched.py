"""A pytest plug-in, ``-p tests._patched``: be what a gevent worker is, patched before anything else."""

from gevent import monkey

monkey.patch_all()
