"""The words of CBV 2.0: four spellings become the bare word, other URIs are somebody else's vocabulary.

``shipping``, ``cbv:BizStep-shipping``, ``https://ref.gs1.org/cbv/BizStep-shipping`` and
``urn:epcglobal:cbv:bizstep:shipping`` are one word. A bare word, or one in GS1's own namespace, that the standard does
not have is refused: nobody could say what it means. Sources: CBV 2.0, sections 7.1 to 7.5 (bizStep, disposition,
business transaction, source and destination, error reason) and 10 (sensors: measurements, exceptions, components).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idtrace.epcis.context import Context
from idtrace.epcis.rules import Fault, Rule
from idtrace.epcis.values import uri
from idtrace.errors import quoted

_CBV: Final = ("https://ref.gs1.org/cbv/", "https://ns.gs1.org/cbv/")
_VOC: Final = ("https://gs1.org/voc/", "https://ref.gs1.org/voc/", "https://www.gs1.org/voc/")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of one field.

    Attributes:
        name: what a word of it is called in a message.
        words: the bare ones.
        stems: what stands before a word in its URIs; the first one is written.
    """

    name: str
    words: frozenset[str]
    stems: tuple[str, ...]

    def read(self, value: object, context: Context) -> str:
        """The bare word, or the URI in full of somebody else's.

        Raises:
            Fault: TYPE, VOCABULARY, URI or SIZE.
        """
        if value.__class__ is not str:
            raise Fault(Rule.TYPE, f"a {self.name} is a text")
        text = str(value)
        if text in self.words:
            return text
        if ":" not in text:
            raise Fault(Rule.VOCABULARY, f"{quoted(text)} is not a {self.name} of CBV 2.0, nor a URI")
        full = context.expand(text)
        for stem in self.stems:
            if full.startswith(stem):
                word = full[len(stem) :]
                if word not in self.words:
                    raise Fault(Rule.VOCABULARY, f"{quoted(full)} is not a {self.name} of CBV 2.0")
                return word
        return uri(full, context)

    def web_uri(self, word: str) -> str:
        """The web URI of a bare word, which stands for it in hashes; any other text as it is."""
        return self.stems[0] + word if word in self.words else word


def _vocabulary(name: str, stems: tuple[str, ...], words: str) -> Vocabulary:
    return Vocabulary(name, frozenset(words.split()), stems)


def _cbv(name: str, web: str, urn: str, words: str) -> Vocabulary:
    return _vocabulary(name, (*(start + web for start in _CBV), f"urn:epcglobal:cbv:{urn}:"), words)


BIZ_STEP: Final = _cbv(
    "bizStep",
    "BizStep-",
    "bizstep",
    "accepting arriving assembling collecting commissioning consigning creating_class_instance cycle_counting "
    "decommissioning departing destroying disassembling dispensing encoding entering_exiting holding inspecting "
    "installing killing loading other packing picking receiving removing repackaging repairing replacing reserving "
    "retail_selling sampling sensor_reporting shipping staging_outbound stock_taking stocking storing transporting "
    "unloading unpacking void_shipping",
)
DISPOSITION: Final = _cbv(
    "disposition",
    "Disp-",
    "disp",
    "active available completeness_inferred completeness_verified conformant container_closed container_open damaged "
    "destroyed dispensed disposed encoded expired in_progress in_transit inactive mismatch_class mismatch_instance "
    "mismatch_quantity needs_replacement no_pedigree_match non_conformant non_sellable_other partially_dispensed "
    "recalled reserved retail_sold returned sellable_accessible sellable_not_accessible stolen unavailable unknown",
)
BUSINESS_TRANSACTION: Final = _cbv(
    "business transaction type",
    "BTT-",
    "btt",
    "bol cert desadv inv pedigree po poc prodorder recadv rma testprd testres upevt",
)
SOURCE_DESTINATION: Final = _cbv("source or destination type", "SDT-", "sdt", "location owning_party possessing_party")
ERROR_REASON: Final = _cbv("error reason", "ER-", "er", "did_not_occur incorrect_data")
COMPONENT: Final = _cbv(
    "component",
    "Comp-",
    "comp",
    "altitude axial_distance azimuth easting elevation_angle height latitude longitude northing polar_angle "
    "spherical_radius x y z",
)
SENSOR_EXCEPTION: Final = _vocabulary("sensor exception", _VOC, "ALARM_CONDITION ERROR_CONDITION")
# EffectiveDose and EffectiveDoseRate are what drafts called DoseEquivalent and DoseEquivalentRate; both are in use.
MEASUREMENT: Final = _vocabulary(
    "sensor measurement type",
    _VOC,
    "AbsoluteHumidity AbsorbedDose AbsorbedDoseRate Acceleration Altitude AmountOfSubstance "
    "AmountOfSubstancePerUnitVolume Angle AngularAcceleration AngularMomentum AngularVelocity Area Capacitance "
    "Conductance Conductivity Count Density Dimensionless DoseEquivalent DoseEquivalentRate DynamicViscosity "
    "EffectiveDose EffectiveDoseRate ElectricCharge ElectricCurrent ElectricCurrentDensity ElectricFieldStrength "
    "Energy Exposure Force Frequency Illuminance Inductance Irradiance KinematicViscosity Length LinearMomentum "
    "Luminance LuminousFlux LuminousIntensity MagneticFlux MagneticFluxDensity MagneticVectorPotential Mass "
    "MassConcentration MassFlowRate MassPerAreaTime MemoryCapacity MolalityOfSolute MolarEnergy MolarMass MolarVolume "
    "Power Pressure RadiantFlux RadiantIntensity Radioactivity RelativeHumidity Resistance Resistivity SolidAngle "
    "SpecificVolume Speed SurfaceDensity SurfaceTension Temperature Time Torque Voltage Volume VolumeFlowRate "
    "VolumeFraction VolumetricFlux Wavenumber",
)
