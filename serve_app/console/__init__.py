"""The console: the page at `/`, its panels, and the door to it.

Everything is rendered here, so that it can be read without JavaScript; the script in `static` only
asks for panels anew when something has happened. Nothing on the page comes from another machine.
"""

from serve_app.console.routes import add_console

__all__ = ["add_console"]
