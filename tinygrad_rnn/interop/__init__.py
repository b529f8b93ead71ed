"""Models to and from other libraries, each conversion exact or refused. A side room: imports anything below it.

`conventions` is the table, as data: what each library's arrays hold. `packing` is the one code that takes them apart
and puts them together by it. `cells` has what other libraries' cells have beyond ours, `layers` holds models of
several layers, `report` says what went where.
"""

from .packing import from_arrays, to_arrays

__all__ = ["from_arrays", "to_arrays"]
