"""The life of China drug trace codes (药品追溯码, NMPAB/T 1002-2019), as EPCIS events and back.

A code has 20 digits: the first seven name drug and package (药品标识码), the other thirteen the single one. Here it is
the identifier ``drug.<7>/<13>``, in events ``idtrace:drug.<7>/<13>``. What firms upload to a collaboration platform as
bills and relations, they report here as events of their own, signed by their own key:

====================== ====================================================================================
drug code              EPCIS 2.0 / CBV 2.0
====================== ====================================================================================
activation 激活         ObjectEvent ADD ``commissioning``
inbound bill 入库单      ObjectEvent OBSERVE ``receiving``, ``recadv`` the bill, ``possessing_party`` source: from whom
outbound bill 出库单     ObjectEvent OBSERVE ``shipping``, ``in_transit``, ``desadv`` the bill, destination: to whom
pack, unpack 关联关系    AggregationEvent ADD ``packing``, DELETE ``unpacking``; unpacking without children: all of them
code replace 换码       TransformationEvent old → new, ``transformationID`` names both; and a cancel of the old code
cancel 注销             ObjectEvent DELETE ``decommissioning``, or ``destroying`` where the drug itself is destroyed
temperature 温度上传     ObjectEvent OBSERVE ``sensor_reporting`` about the equipment, ``deviceID`` the equipment
equipment list 设备     AssociationEvent ADD (fitted) or DELETE: parent the vehicle or the room, child the equipment
====================== ====================================================================================

A replacement is a transformation, and not a decommissioning and a commissioning with a note that they belong together:
by a transformation all readers of EPCIS follow what a thing was made of, so the new code inherits the cold chain, the
recalls and the hands of the old one, and the two halves cannot come apart. The old code is its input, and what went in
is never used again: its state is cancelled, as a code is never reused (NMPAB/T 1002-2019). A decommissioning of the
old code at the same time says so to readers that look no further. Only the maker gives out codes, so only the maker
replaces them, while it has the package in hand.
"""
