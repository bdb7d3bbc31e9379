"""Where a chain runs: cities of China with their coordinates, and how long a lorry takes between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Final

EARTH_RADIUS_KM: Final = 6_371.0
# Roads are longer than the great circle by about three tenths; a refrigerated lorry keeps 70 km/h with its breaks.
ROAD_FACTOR: Final = 1.3
LORRY_KM_PER_HOUR: Final = 70.0
# From here on a consignment flies; door to door by air on top of two hours on the ground at each end.
FLIGHT_FROM_KM: Final = 1_200.0
AIRLINER_KM_PER_HOUR: Final = 750.0
GROUND_HOURS: Final = 4.0


@dataclass(frozen=True, slots=True)
class City:
    """A city: names, WGS 84 degrees."""

    name_en: str
    name_zh: str
    latitude: float
    longitude: float


# Makers of vaccines are found in these.
MAKERS: Final = (
    City("Beijing", "北京", 39.9042, 116.4074),
    City("Wuhan", "武汉", 30.5928, 114.3055),
    City("Chengdu", "成都", 30.5728, 104.0668),
    City("Lanzhou", "兰州", 36.0611, 103.8343),
    City("Changchun", "长春", 43.8171, 125.3235),
    City("Kunming", "昆明", 25.0389, 102.7183),
    City("Shanghai", "上海", 31.2304, 121.4737),
    City("Shenzhen", "深圳", 22.5431, 114.0579),
)
# A province's capital with cities of its districts.
PROVINCES: Final = (
    (City("Nanjing", "南京", 32.0603, 118.7969), (City("Suzhou", "苏州", 31.2990, 120.5853),
                                                 City("Xuzhou", "徐州", 34.2058, 117.2841))),
    (City("Hangzhou", "杭州", 30.2741, 120.1551), (City("Ningbo", "宁波", 29.8683, 121.5440),
                                                  City("Wenzhou", "温州", 27.9938, 120.6994))),
    (City("Guangzhou", "广州", 23.1291, 113.2644), (City("Foshan", "佛山", 23.0215, 113.1214),
                                                   City("Zhanjiang", "湛江", 21.2707, 110.3594))),
    (City("Jinan", "济南", 36.6512, 117.1201), (City("Qingdao", "青岛", 36.0671, 120.3826),
                                               City("Yantai", "烟台", 37.4638, 121.4479))),
    (City("Xi'an", "西安", 34.3416, 108.9398), (City("Baoji", "宝鸡", 34.3619, 107.2373),
                                               City("Yulin", "榆林", 38.2852, 109.7345))),
    (City("Changsha", "长沙", 28.2282, 112.9388), (City("Zhuzhou", "株洲", 27.8274, 113.1340),
                                                  City("Yueyang", "岳阳", 29.3572, 113.1292))),
)  # fmt: skip
FAR_AWAY: Final = City("Ürümqi", "乌鲁木齐", 43.8256, 87.6168)


def distance_km(first: City, second: City) -> float:
    """Great-circle distance (haversine)."""
    lat1, lat2 = radians(first.latitude), radians(second.latitude)
    half_lat, half_lon = (lat2 - lat1) / 2, radians(second.longitude - first.longitude) / 2
    chord = sin(half_lat) ** 2 + cos(lat1) * cos(lat2) * sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(chord))


def travel_hours(first: City, second: City) -> float:
    """How long a consignment takes from door to door, half an hour at the least."""
    distance = distance_km(first, second)
    if distance >= FLIGHT_FROM_KM:
        return GROUND_HOURS + distance / AIRLINER_KM_PER_HOUR
    return max(0.5, distance * ROAD_FACTOR / LORRY_KM_PER_HOUR)


def beside(city: City, north_km: float, east_km: float) -> City:
    """A place so far north and east of a city's centre."""
    latitude = city.latitude + north_km / 111.2
    return City(city.name_en, city.name_zh, round(latitude, 4),
                round(city.longitude + east_km / (111.2 * cos(radians(latitude))), 4))  # fmt: skip
