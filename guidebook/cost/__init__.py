"""What computing costs: owning a machine, renting one, and when the one pays against the other.

Money is in US dollars, time in hours and months of 30.44 days, energy in kWh. Nothing here knows
a price: they come from :mod:`guidebook.catalog.prices`, :mod:`guidebook.catalog.clouds`, or the
reader.
"""
