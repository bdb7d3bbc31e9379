"""What each finding says to a person, in English and Chinese; published texts keep their meaning for ever.

Placeholders in braces are filled from :attr:`Finding.values`; a check gives every one that its code's texts name.
"""

# ruff: noqa: RUF001 - Chinese sentences have Chinese punctuation

from __future__ import annotations

from typing import Final

from idtrace.verdict.findings import Code, Finding, Use

EN: Final = 0
ZH: Final = 1

TITLES: Final[dict[Use, tuple[str, str]]] = {
    Use.USE: ("USE", "可以使用"),
    Use.HOLD: ("HOLD", "暂停使用"),
    Use.DO_NOT_USE: ("DO NOT USE", "禁止使用"),
}

TEXTS: Final[dict[Code, tuple[str, str]]] = {
    Code.NOT_REGISTERED: ("The code {identifier} is not registered.", "编码 {identifier} 未登记。"),
    Code.FORGED: (
        "What answers for {identifier} is not what its owner signed ({reason}).",
        "{identifier} 的应答不是其所有者签名的内容（{reason}）。",
    ),
    Code.UNPROVEN: (
        "Nobody could be asked whether {identifier} is genuine ({reason}).",
        "暂时无法查证 {identifier} 的真伪（{reason}）。",
    ),
    Code.ENDED: ("The code {identifier} has ended ({reason}).", "编码 {identifier} 已终止（{reason}）。"),
    Code.SUSPENDED: ("Its owner has suspended {identifier}.", "所有者已暂停 {identifier}。"),
    Code.NOT_COMMISSIONED: (
        "Nobody has reported that {identifier} was made.",
        "没有 {identifier} 的生产（赋码）记录。",
    ),
    Code.COMMISSIONED_BY_STRANGER: (
        "It was not made once by who may make it: {detail}.",
        "生产（赋码）方无权生产或重复赋码：{detail}。",
    ),
    Code.PRODUCT_UNKNOWN: (
        "The product of {identifier} and its limits are not known.",
        "{identifier} 的品种及其温度限值不明。",
    ),
    Code.LOT_MISMATCH: (
        "Its record and the events that made it differ ({field}): {values}.",
        "登记与生产记录不一致（{field}）：{values}。",
    ),
    Code.RECALLED: (
        "Recalled by {zone} (recall {recall}, level {level}): {reason_en}",
        "已被 {zone} 召回（召回 {recall}，{level} 级）：{reason_zh}",
    ),
    Code.RECALL_UNKNOWN: (
        "Whether {zone} has recalled it could not be learned: {detail}.",
        "无法查明 {zone} 是否已将其召回。",
    ),
    Code.EXPIRED: ("It expired after {expiry}.", "有效期至 {expiry}，已过期。"),
    Code.EXPIRY_UNKNOWN: ("Nobody says until when {identifier} may be used.", "{identifier} 的有效期不明。"),
    Code.DECOMMISSIONED: ("{party} has taken {thing} out of use.", "{party} 已注销 {thing}。"),
    Code.DESTROYED: ("{party} has reported {thing} destroyed.", "{party} 已报告 {thing} 销毁。"),
    Code.STOLEN: ("{party} has reported {thing} stolen.", "{party} 已报告 {thing} 被盗。"),
    Code.DAMAGED: ("{party} has reported {thing} damaged.", "{party} 已报告 {thing} 损坏。"),
    Code.DISPENSED: (
        "All of its doses have been given ({given} of {doses}).",
        "全部剂次已接种（{given}/{doses}）。",
    ),
    Code.OVER_DISPENSED: (
        "More doses were given ({given}) than it has ({doses}): the code was copied.",
        "接种剂次（{given}）多于包装剂次（{doses}）：编码被复制。",
    ),
    Code.VIAL_OPEN_TOO_LONG: (
        "The vial was opened more than {hours} hours ago.",
        "开瓶已超过 {hours} 小时。",
    ),
    Code.EVENT_WITHDRAWN: (
        "{party} has taken back what would have ended its use ({said}), and nobody else has looked since.",
        "{party} 撤回了会终止其使用的报告（{said}），此后无人复核。",
    ),
    Code.ON_HOLD: ("{party} has put it on hold ({doubt}).", "{party} 已将其待处理（{doubt}）。"),
    Code.PARTY_UNLICENSED: (
        "{party} had no valid licence when it handled this.",
        "{party} 经手时没有有效许可。",
    ),
    Code.PARTY_ROLE: (
        "{party} ({roles}) may not do this: {step}.",
        "{party}（{roles}）无权进行此操作：{step}。",
    ),
    Code.REPORTED_BY_STRANGER: ("Somebody who did not hold it has handled it: {detail}.", "非持有方经手：{detail}。"),
    Code.CUSTODY_NO_SHIPPER: ("It was received, and nobody has shipped it: {detail}.", "有收货而无发货：{detail}。"),
    Code.CUSTODY_NO_RECEIPT: (
        "It was shipped, and has not been received: {detail}.",
        "有发货而无收货：{detail}。",
    ),
    Code.CUSTODY_WRONG_RECEIVER: (
        "It was received by another than it was shipped to: {detail}.",
        "收货方与发货目的方不符：{detail}。",
    ),
    Code.CUSTODY_OVERLAP: ("It was in two hands at once: {detail}.", "同时在两方手中：{detail}。"),
    Code.IMPOSSIBLE_TRAVEL: (
        "From {first} to {second}, {km} km, in {minutes} minutes: nothing travels so fast.",
        "{minutes} 分钟内从 {first} 到 {second}（{km} 公里），不可能。",
    ),
    Code.DOUBLE_PRESENCE: (
        "It was at {first} and at {second} at once: the code was copied.",
        "同时出现在 {first} 和 {second}：编码被复制。",
    ),
    Code.AGGREGATION_CONTRADICTION: ("Its packages contradict each other: {detail}.", "包装关系矛盾：{detail}。"),
    Code.TIME_DISORDER: ("A report by {party} cannot be true: {detail}.", "{party} 的报告时间矛盾：{detail}。"),
    Code.FROZEN: (
        "It froze: down to {minimum} °C ({minutes} min, {device}).",
        "曾结冻：最低 {minimum} °C（{minutes} 分钟，{device}）。",
    ),
    Code.TOO_COLD: (
        "Too cold for too long: down to {minimum} °C for {minutes} min ({rule}).",
        "低温超限：最低 {minimum} °C，{minutes} 分钟（{rule}）。",
    ),
    Code.TOO_WARM: (
        "Too warm for too long: up to {maximum} °C for {minutes} min ({rule}).",
        "高温超限：最高 {maximum} °C，{minutes} 分钟（{rule}）。",
    ),
    Code.HEAT_CUMULATIVE: (
        "Too warm for too long in all: {minutes} min, up to {maximum} °C ({rule}).",
        "累计高温超限：共 {minutes} 分钟，最高 {maximum} °C（{rule}）。",
    ),
    Code.BUDGET_SPENT: (
        "Its time outside the limits is spent: {minutes} min in all.",
        "超温时间额度已用尽：共 {minutes} 分钟。",
    ),
    Code.MKT_EXCEEDED: (
        "Its mean kinetic temperature was too high: {maximum} °C ({rule}).",
        "平均动力学温度超限：{maximum} °C（{rule}）。",
    ),
    Code.EXCURSION: (
        "Outside its limits for {minutes} min ({minimum} to {maximum} °C), less than any rule forbids.",
        "短时超温 {minutes} 分钟（{minimum} 至 {maximum} °C），未超规定。",
    ),
    Code.SILENCE: (
        "No temperature was recorded for {minutes} min ({device}).",
        "有 {minutes} 分钟没有温度记录（{device}）。",
    ),
    Code.NO_TEMPERATURE: (
        "A part of its way has no temperature at all: {minutes} min ({device}).",
        "有一段路程完全没有温度记录：{minutes} 分钟（{device}）。",
    ),
    Code.SENSOR_STUCK: (
        "Sensor {device} shows one and the same value for {minutes} min.",
        "温度探头 {device} 读数 {minutes} 分钟不变。",
    ),
    Code.SENSOR_JUMP: (
        "Sensor {device} jumps between {minimum} and {maximum} °C.",
        "温度探头 {device} 读数在 {minimum} 与 {maximum} °C 之间跳变。",
    ),
    Code.SENSOR_CLOCK: ("The clock of sensor {device} is wrong.", "温度探头 {device} 时钟不准。"),
    Code.SENSOR_CALIBRATION: ("The calibration of sensor {device} had ended.", "温度探头 {device} 校准已过期。"),
    Code.SENSOR_DISAGREE: (
        "Two sensors of one place disagree: {minimum} and {maximum} °C ({device}).",
        "同一处两个探头不一致：{minimum} 与 {maximum} °C（{device}）。",
    ),
    Code.SENSOR_ERROR: ("Sensor {device} reported an error.", "温度探头 {device} 报告故障。"),
    Code.ALARM_OPEN: (
        "Nobody has acknowledged a temperature alarm ({minimum} to {maximum} °C, {minutes} min).",
        "温度报警未处理（{minimum} 至 {maximum} °C，{minutes} 分钟）。",
    ),
    Code.HISTORY_GAP: (
        "A part of its history could not be had ({kind}): {subject}.",
        "部分流通记录无法取得（{kind}）：{subject}。",
    ),
    Code.HISTORY_LIMIT: (
        "Its history is longer than what is looked at: {detail}.",
        "流通记录超出查询上限：{detail}。",
    ),
}


def text(finding: Finding, language: int) -> str:
    """The finding as a sentence, :data:`EN` or :data:`ZH`."""
    return TEXTS[finding.code][language].format_map(finding.values)
