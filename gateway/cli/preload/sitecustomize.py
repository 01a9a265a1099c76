"""Loaded by every Python under `keyless run` (PYTHONPATH): leads the clients that read no proxy variables to the forwarder.

Those are aiohttp sessions that were not told `trust_env`, and urllib3's bare PoolManager; stripe trusts no CA but its own. It also loads the sitecustomize
that it stands in front of (Debian has one, and users do). Whatever fails in here, the program runs on as if this were not there.
"""
import os
import sys


def _lead_aiohttp(module):
    session = module.ClientSession
    plain = session.__init__

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("trust_env", True)
        plain(self, *args, **kwargs)

    __init__.__wrapped__ = plain
    __init__.__doc__ = plain.__doc__
    session.__init__ = __init__


def _lead_urllib3(module):
    pool = module.PoolManager
    plain = pool.urlopen

    def urlopen(self, method, url, *args, **kwargs):
        # One that has a proxy is left to it: its own, or ours, which comes by here again.
        proxied = None if getattr(self, "proxy", None) else _proxied(module, self, url)
        if proxied is None:
            return plain(self, method, url, *args, **kwargs)
        return proxied.urlopen(method, url, *args, **kwargs)

    urlopen.__wrapped__ = plain
    urlopen.__doc__ = plain.__doc__
    pool.urlopen = urlopen


def _proxied(module, pool, url):
    """The pool that takes this one's place for the URL: with the same settings, through the proxy of the environment."""
    from urllib.request import getproxies, proxy_bypass
    from urllib.parse import unquote, urlsplit

    asked = urlsplit(url)
    proxy = getproxies().get(asked.scheme)
    if asked.scheme not in ("http", "https") or not proxy or proxy_bypass(asked.netloc.rpartition("@")[2]):
        return None
    known = pool.__dict__.get("_keyless_proxied")
    if known is None or known[0] != proxy:
        from urllib3.util import make_headers

        parts = urlsplit(proxy)
        auth = unquote("%s:%s" % (parts.username, parts.password or "")) if parts.username else None
        settings = dict(pool.connection_pool_kw)
        headers = make_headers(proxy_basic_auth=auth) if auth else None
        place = "%s://%s:%s" % (parts.scheme, parts.hostname, parts.port or 80)
        made = module.ProxyManager(place, headers=pool.headers, proxy_headers=headers, **settings)
        known = pool._keyless_proxied = (proxy, made)
    return known[1]


def _lead_stripe(module):
    # It brings roots of its own and reads no variable for others.
    module.ca_bundle_path = os.environ.get("SSL_CERT_FILE") or module.ca_bundle_path


_LED = {"aiohttp.client": _lead_aiohttp, "urllib3.poolmanager": _lead_urllib3, "stripe": _lead_stripe}


def _debug():
    if os.environ.get("KEYLESS_DEBUG"):
        import traceback

        traceback.print_exc()


class _Finder(object):
    """Waits for the modules of `_LED`, and finds nothing else."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _LED:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                try:
                    _LED[name](module)
                except Exception:
                    _debug()

            spec.loader.exec_module = exec_module
        return spec


def _load_shadowed():
    """The sitecustomize that would have been found without this one. Plain import: importlib itself costs milliseconds."""
    here = os.path.dirname(os.path.realpath(__file__))
    own = [place for place in sys.path if os.path.realpath(place or os.curdir) == here]
    this = sys.modules.pop("sitecustomize")
    for place in own:
        sys.path.remove(place)
    try:
        __import__("sitecustomize")
    except ImportError as missing:
        sys.modules["sitecustomize"] = this
        if getattr(missing, "name", None) != "sitecustomize":
            raise
    finally:
        sys.path[:0] = own


try:
    sys.meta_path.insert(0, _Finder)
except Exception:
    _debug()

# Last, and not caught: what it raises Python reports as it would without this file.
if sys.version_info[0] > 2:
    _load_shadowed()
