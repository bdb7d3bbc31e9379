"""Units of measure by what is measured: codes of UN/ECE Recommendation 20, as CBV 2.0 section 10 pairs them.

A temperature in kilograms is a mistake of whoever reports it, and a reader that took the number for degrees would make
a verdict of it. So a code that belongs to other quantities is refused; a code that this table does not know is refused
for temperatures alone, whose units are all known here, and else left to its reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from idtrace.epcis.rules import Fault, Rule
from idtrace.errors import quoted

# The form of all codes of the recommendation (EPCIS 2.0, section 7.3.3.3).
_CODE: Final = re.compile(r"[A-Z0-9]{2,3}\Z")

_TABLE: Final = {
    "Temperature": "CEL KEL FAH A48",
    "RelativeHumidity": "P1 C62",
    "VolumeFraction": "P1 C62 59 61 K62 L19 NX",
    "AbsoluteHumidity": "A93 KMQ GP GQ B35 GL M1 F23 23",
    "Density": "KMQ 23 D41 GJ B35 GL A93 GP B72 B34 H29 M1 GQ F23 G31 87 GE LA G32 K41 K71 K84 L37 L38 L39 L65 L92 L93",
    "MassConcentration": "KMQ 23 D41 GJ B35 GL A93 GP B72 B34 H29 M1 GQ F23 G31",
    "Pressure": "PAL H75 74 A89 A97 B96 KPA MPA BAR MBR C55 C56 B40 UA 80 H78 HP F79 F78 ATT ATM J89 K24 K25 K31 E42 "
    "E41 K85 84 N13 N14 N15 N16 N17 N18 N19 N20 N21 N22 N23 HN PS",
    "Time": "SEC MIN HUR DAY B52 C26 H70 B98 C47 WEE MON ANN D42 L95 L96 M56",
    "Frequency": "HTZ KHZ MHZ A86 D29",
    "Length": "MTR A11 A71 C45 4H A12 DMT CMT MMT INH FOT YRD NMI A45 HMT KMT B57 AK M50 M49 X1 M51 SMI",
    "Altitude": "MTR DMT CMT MMT INH FOT YRD NMI A45 HMT KMT SMI",
    "Area": "MTK KMK H30 DAA CMK DMK H16 H18 MMK ARE HAR INK FTK YDK MIK M48 ACR M47",
    "Volume": "MTQ MAL LTR MMQ CMQ DMQ MLT CLT DMA H19 H20 DLT 4G K6 A44 INQ FTQ YDQ GLI GLL PT PTI QTI PTL QTL PTD "
    "OZI QT J57 L43 L61 L62 L84 L86 OZA BUI BUA BLL BLD GLD QTD G26 G21 G24 G25 G23 M67 M68 M69 M70",
    "Mass": "KGM KTN LTN 2U TNE STN DTN STI LBR HGM ONZ DJ APZ GRM DG CGM MGM MC F13 CWI CWA M86",
    "Speed": "MTS KMH HM M57 M58 KNT M62 H49 2M K14 FR FS M63 IU M61 2X",
    "Acceleration": "MSK A76 M38 M39 M41 A73 IV K40 M40 M42",
    "Angle": "C81 C25 B97 A91 DD D61 D62 M43 M44",
    "Illuminance": "B60 LUX KLX P25 P26 P27",
    "LuminousIntensity": "CDL P33 P34",
    "ElectricCurrent": "AMP B22 H38 4K B84 C39 C70 N96 N97",
    "ElectricCharge": "COU A8 AMH TAH D77 D86 B26 B86 C40 C71 E09 N95 N94",
    "Voltage": "VLT N99 2Z B78 D82 KVT",
    "Resistance": "OHM A87 B75 H44 B49 E45 B94 P22",
    "Conductance": "SIE B53 C27 B99 N92 NQ NR",
    "Capacitance": "FAR H48 C10 40 C41 4T N90",
    "Inductance": "81 C14 B90 C43 C73 P24",
    "Power": "WTT KWT MAW A90 C31 D80 F80 A63 A74 B39 HJ A25 BHP K15 K16 K42 N12",
    "Energy": "JOU KJO A68 C68 D30 GV 3B C15 A70 A13 WHR MWH KWH GWH D32 A53 B71 A85 B29 A57 85 B38 N46 N47 D60 J75 "
    "E14 K51 K53 BTU J37 N71 N72 J55",
    "Force": "NEW B47 B73 B92 C20 DU C78 B37 B51 L40 L94 M75 M76 M77 M78",
    "Torque": "NU B74 B48 D83 B93 DN J72 B38 F21 J94 L41 M92 M95 M96 M97",
    "MagneticFlux": "WEB C33 P11",
    "MagneticFluxDensity": "D33 C29 D81 C48 P13 P12",
    "MagneticVectorPotential": "D59 B56 D60",
    "AmountOfSubstance": "C34 B45 C18 FH",
    "AmountOfSubstancePerUnitVolume": "C36 M33 C38 C35 B46",
    "MolarMass": "D74 A94",
    "MolarEnergy": "B15 B44",
    "MolarVolume": "A40 A37 A36 B58",
    "SpecificVolume": "A39 22 H83 KX N28 N29 N30",
    "Radioactivity": "CUR MCU M5 2R BQL GBQ 2Q 4N H08",
    "AbsorbedDose": "A95 C13 C80 A61",
    "AbsorbedDoseRate": "P54 P55 P56 P57 P58 P59 P60 P61 P62 P63 P64",
    "DoseEquivalent": "D13 C28 D91 L31",
    "DoseEquivalentRate": "P65 P66 P67 P68 P69 P70 P71 P72 P73 P74 P75 P76 P77",
    "EffectiveDose": "D13 C28 D91 L31",
    "EffectiveDoseRate": "P65 P66 P67 P68 P69 P70 P71 P72 P73 P74 P75 P76 P77",
}
UNITS: Final[Mapping[str, frozenset[str]]] = {name: frozenset(codes.split()) for name, codes in _TABLE.items()}
_KNOWN: Final = frozenset().union(*UNITS.values())


def require_uom(code: object, _context: object = None) -> str:
    """A code of Recommendation 20, by its form.

    Raises:
        Fault: TYPE or UOM.
    """
    if not isinstance(code, str):
        raise Fault(Rule.TYPE, "a unit of measure is a text")
    if _CODE.match(code) is None:
        raise Fault(Rule.UOM, f"{quoted(code)} is not a code of UN/ECE Recommendation 20: 2 or 3 capitals and digits")
    return code


def require_measures(measurement: str, code: str) -> None:
    """Require that the unit measures what is measured (a bare word of CBV; somebody else's type has units of its own).

    Raises:
        Fault: UOM, at ``uom``.
    """
    units = UNITS.get(measurement)
    if units is None or code in units:
        return
    if measurement == "Temperature" or code in _KNOWN:
        shown = ", ".join(sorted(units)[:8])
        raise Fault(Rule.UOM, f"{quoted(code)} does not measure {measurement}; {shown} for example do", "uom")
