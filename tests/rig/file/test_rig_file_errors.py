"""Every mistake in a rig file is told with its place, its reason and, where there is one, the next step."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.errors import ExitCode, RigFileError, SafetyRefusal, UsageError
from hwvirt.rig.file import load_rig, parse_rig

GOOD = """\
rig: good
seed: 42
disks:
  first: {loop: {size: 64MiB, block: 4KiB}}
  second: {loop: {size: 128MiB, block: 4KiB}}
controllers:
  a: {disk: first, luns: {0: redirect, 1: frozen, 2: {forward: b/0}}}
  b: {disk: second, luns: {0: own}}
link: {ethernet: {stall: 30s}}
host: {path: nbd}
scenarios:
  - name: a story
    steps:
      - fill: {lun: 0}
      - redirect: {lun: 0}
      - workload: {lun: 0, ops: 100, depth: 4, blocks: 1..8, mix: {write: 60, read: 40}}
        faults: [{at: 30%, link: cut, for: 3s}, {after: {acknowledged: 50}, crash: b}]
        while: {backup: {lun: 1}}
      - judge: all
    expect: {acknowledged: ">= 10", mismatches: 0}
"""

TOKENS = ["", "{", "}", "[", "]", ": ", ", ", "- ", "0", "-1", "~", "{}", "own", "b/0", "1.5"]
TOKENS += ["\n", "  ", "&x ", "*x", "!!", "\t", "\0"]

# What is wrong: (what the good rig says, what the bad one says instead, the whole message behind "rig.yaml:")
MISTAKES = {
    "unknown key at the top": ("seed: 42", "sede: 42", "2:1: unknown key 'sede'. Did you mean 'seed'?"),
    "unknown key far from any other": (
        "seed: 42",
        "zzz: 42",
        "2:1: unknown key 'zzz'. Known: rig, disks, controllers, scenarios, seed, link, host, lab, expect.",
    ),
    "unknown key deep inside": (
        "depth: 4",
        "dept: 4",
        "16:38: scenarios[0].steps[2].workload: unknown key 'dept'. Did you mean 'depth'?",
    ),
    "doubled key": (
        "host: {path: nbd}",
        "host: {path: nbd}\nseed: 43",
        "11:1: key 'seed' stands here a second time; the first is in line 2",
    ),
    "doubled name of a disk": (
        "second: {loop",
        "first: {loop",
        "5:3: disks: key 'first' stands here a second time; the first is in line 4",
    ),
    "doubled LUN": (
        "1: frozen",
        "0: frozen",
        "7:40: controllers.a.luns: key '0' stands here a second time; the first is in line 7",
    ),
    "missing key": ("size: 64MiB, ", "", "4:17: disks.first.loop: key 'size' is missing"),
    "missing part": ("host: {path: nbd}\nscenarios:", "host:\n  path: nbd\nexpect:", "1:1: key 'scenarios' is missing"),
    "size without unit": ("64MiB", "64", "4:24: disks.first.loop.size: size '64' has no unit; write it like 64MiB"),
    "size with a wrong unit": (
        "64MiB",
        "64MB",
        "4:24: disks.first.loop.size: size '64MB' has an unknown unit 'MB'; known are B, KiB, MiB, GiB, TiB",
    ),
    "size that is no size": ("64MiB", "large", "4:24: disks.first.loop.size: 'large' is not a size; write it like 64MiB"),
    "size of nothing": ("64MiB", "0MiB", "4:24: disks.first.loop.size: must be more than nothing"),
    "size beyond all numbers": ("64MiB", "9" * 400 + "TiB", "4:24: disks.first.loop.size: is beyond all numbers"),
    "a disk that nobody can have": (
        "64MiB",
        "99999999TiB",
        "4:24: disks.first.loop.size: must be at most 1024TiB, not 99999999TiB",
    ),
    "a disk that is named by its node": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: /dev/sdc",
        "4:10: disks.first: '/dev/sdc' is a node, and may be another disk tomorrow. "
        "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.",
    ),
    "a real disk that is named by its node": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {sg: /dev/sdc}",
        "4:15: disks.first.sg: '/dev/sdc' is a node, and may be another disk tomorrow. "
        "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.",
    ),
    "more operations than anybody waits for": (
        "ops: 100",
        "ops: 99999999999999999999999",
        "16:33: scenarios[0].steps[2].workload.ops: must be 1 to 100000000, not 99999999999999999999999",
    ),
    "a number that is not written like one": (
        "ops: 100",
        "ops: 1__0",
        "16:33: scenarios[0].steps[2].workload.ops: must be a whole number, not '1__0'",
    ),
    "a wait that nobody sees the end of": (
        "stall: 30s",
        "stall: 99999999h",
        "9:26: link.ethernet.stall: must be at most 1000h, not 99999999h",
    ),
    "more blocks than any number": (
        "blocks: 1..8",
        "blocks: 1..99999999999",
        "16:56: scenarios[0].steps[2].workload.blocks: 99999999999 blocks do not fit the volume, which has 16384",
    ),
    "a store that is bigger than its disk": (
        "luns: {0: own}",
        "luns: {0: own}, store: {size: 1TiB}",
        "8:44: controllers.b.store: the store has 268402688 blocks more than disk second (32768 blocks of 4096 bytes)",
    ),
    "a judge of nearly everything": (
        "judge: all",
        "judge: al",
        "19:16: scenarios[0].steps[3].judge: unknown word 'al'. Did you mean 'all'?",
    ),
    "a frame of garbage that fills the memory": (
        "link: cut, for: 3s",
        "link: {garbage: 1GiB}",
        "17:44: scenarios[0].steps[2].faults[0].link.garbage: must be at most 1MiB, not 1GiB",
    ),
    "size that is no whole number of blocks": (
        "64MiB",
        "65537KiB",
        "4:24: disks.first.loop.size: 67109888 bytes are not a whole number of 4096-byte blocks",
    ),
    "block size that disks do not have": (
        "64MiB, block: 4KiB",
        "64MiB, block: 8KiB",
        "4:38: disks.first.loop.block: must be 512B or 4KiB",
    ),
    "duration without unit": (
        "stall: 30s",
        "stall: 30",
        "9:26: link.ethernet.stall: duration '30' has no unit; write it like 3s",
    ),
    "a value where a mapping belongs": (
        "{loop: {size: 64MiB, block: 4KiB}}",
        "{loop: 64MiB}",
        "4:17: disks.first.loop: must be a mapping, not '64MiB'",
    ),
    "a mapping where a value belongs": ("seed: 42", "seed: {}", "2:7: seed: must be a single value, not a mapping"),
    "a mapping where a list belongs": (
        "[{at: 30%, link: cut, for: 3s}, {after: {acknowledged: 50}, crash: b}]",
        "{}",
        "17:17: scenarios[0].steps[2].faults: must be a list, not a mapping",
    ),
    "an empty value": ("seed: 42", "seed:", "2:6: seed: is empty"),
    "a word where a number belongs": (
        "ops: 100",
        "ops: many",
        "16:33: scenarios[0].steps[2].workload.ops: must be a whole number, not 'many'",
    ),
    "a number out of range": (
        "depth: 4",
        "depth: 5000",
        "16:45: scenarios[0].steps[2].workload.depth: must be 1 to 1024, not 5000",
    ),
    "a path of hosts that is not there yet": (
        "host: {path: nbd}",
        "host: {path: iscsi}",
        "10:14: host.path: this version reaches hosts by NBD only, not by iSCSI. Write `path: nbd`.",
    ),
    "a seed below zero": ("seed: 42", "seed: -1", "2:7: seed: must be a whole number, not '-1'"),
    "a name that no path can carry": (
        "rig: good",
        "rig: ../evil",
        "1:6: rig: '../evil' is no usable name. Names have letters, digits and _ . - and at most 48 of them; "
        "the first is a letter or digit.",
    ),
    "a kind of disk that does not exist": (
        "first: {loop",
        "first: {lop",
        "4:11: disks.first: unknown key 'lop'. Did you mean 'loop'?",
    ),
    "two kinds of disk at once": (
        "block: 4KiB}}\n  second",
        "block: 4KiB}, scsi-debug: {size: 1MiB}}\n  second",
        "4:10: disks.first: needs exactly one of loop, sg, scsi-debug, tcm-loop, tcmu, not loop and scsi-debug together",
    ),
    "a disk of scsi-debug that its driver does not make": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {scsi-debug: {size: 1028KiB}}",
        "4:30: disks.first.scsi-debug.size: 1052672 bytes are not a whole number of MiB, as scsi-debug wants it",
    ),
    "disks of scsi-debug that differ in size": (
        "  first: {loop: {size: 64MiB, block: 4KiB}}\n  second: {loop: {size: 128MiB, block: 4KiB}}",
        "  first: {scsi-debug: {size: 64MiB}}\n  second: {scsi-debug: {size: 128MiB}}",
        "5:11: disks.second: has 128MiB in blocks of 4KiB, and first has 64MiB in blocks of 4KiB: all scsi-debug disks of a "
        "kernel are alike. Give them one size and one block size, or each controller a kernel: `lab: {kernels: each}`.",
    ),
    "a real disk in the lab": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB}}\n  third: {sg: {wwn: naa.5, size: 1GiB, block: 4KiB, window: {lba: 1, blocks: 9}}}",
        "5:10: disks.third: no real disk is there: the rig runs in the lab, where first is made. "
        "Put real disks into a rig without scsi-debug, tcm-loop and tcmu disks.",
    ),
    "a disk of the machine under a kernel of its own": (
        "first: {loop: {size: 64MiB, block: 4KiB}}\n  second: {loop: {size: 128MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB}}\n  second: {loop: {size: 128MiB}}\nlab: {kernels: each}",
        "5:11: disks.second: the kernel of controller b makes scsi-debug, tcm-loop and tcmu disks only. "
        "Use one of these, or one kernel for all: `lab: {kernels: shared}`.",
    ),
    "a fault of a disk with an answer that no disk gives": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, answer: medium-eror}]}}",
        "4:59: disks.first.tcmu.faults[0].answer: unknown word 'medium-eror'. Did you mean 'medium-error'?",
    ),
    "a fault of a disk behind its end": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: any, answer: busy, lba: 16000..16384}]}}",
        "4:69: disks.first.tcmu.faults[0].lba: LBA 16384 does not exist; the last one of the disk is 16383",
    ),
    "a fault of a disk that ends before it begins": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: any, answer: busy, lba: 7..5}]}}",
        "4:69: disks.first.tcmu.faults[0].lba: 7..5 is no range; the second number is not smaller than the first",
    ),
    "a fault of a disk at no LBA": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: any, answer: busy, lba: 7-9}]}}",
        "4:69: disks.first.tcmu.faults[0].lba: '7-9' is no range of LBAs; write it like 100 or 100..107",
    ),
    "a fault of a disk that does nothing": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read}]}}",
        "4:40: disks.first.tcmu.faults[0]: does nothing. Give it an `answer`, a `sense` or a `delay`.",
    ),
    "a fault of a disk with two answers": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, answer: busy, sense: 6/29/00}]}}",
        "4:40: disks.first.tcmu.faults[0]: has an answer and a sense. A sense is an answer: leave out one of "
        "them.",
    ),
    "a fault of a disk with a status that is none": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, answer: task-set-ful}]}}",
        "4:59: disks.first.tcmu.faults[0].answer: unknown word 'task-set-ful'. Did you mean 'task-set-full'?",
    ),
    "a check condition of a disk without its sense": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, answer: check-condition}]}}",
        "4:59: disks.first.tcmu.faults[0].answer: a check condition comes with its sense. Write `sense: "
        "6/29/00` instead of an answer.",
    ),
    "a sense of a disk that is none": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, sense: 6/2900}]}}",
        "4:58: disks.first.tcmu.faults[0].sense: '6/2900' is no sense; write it like 6/29/00: sense key, asc "
        "and ascq, hexadecimal",
    ),
    "a sense key that is reserved": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, sense: c/29/00}]}}",
        "4:58: disks.first.tcmu.faults[0].sense: 'c/29/00' is no sense; write it like 6/29/00: sense key, "
        "asc and ascq, hexadecimal",
    ),
    "a delay of a disk that is none": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, delay: 0ms}]}}",
        "4:58: disks.first.tcmu.faults[0].delay: must be more than nothing",
    ),
    "a delay of a disk without a unit": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, delay: 200}]}}",
        "4:58: disks.first.tcmu.faults[0].delay: duration '200' has no unit; write it like 3s",
    ),
    "a fault of a disk with a misspelt key": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: read, dely: 200ms}]}}",
        "4:51: disks.first.tcmu.faults[0]: unknown key 'dely'. Did you mean 'delay'?",
    ),
    "a command of a disk that does not exist": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: [read, flsh], answer: busy}]}}",
        "4:52: disks.first.tcmu.faults[0].on[1]: unknown word 'flsh'. Did you mean 'flush'?",
    ),
    "an operation code that is none": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: 9e, answer: busy}]}}",
        "4:45: disks.first.tcmu.faults[0].on: '9e' is no operation code; write it like 0x9e",
    ),
    "an operation code of more than a byte": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: 0x9e10, answer: busy}]}}",
        "4:45: disks.first.tcmu.faults[0].on: '0x9e10' is no operation code; write it like 0x9e",
    ),
    "a fault of a disk about no command": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: [], answer: busy}]}}",
        "4:45: disks.first.tcmu.faults[0].on: names no command. Write a word like `read`, an operation code "
        "like 0x9e, or a list of them.",
    ),
    "a command that no disk of the kernel ever meets": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: [read, 0xa0], answer: busy}]}}",
        "4:52: disks.first.tcmu.faults[0].on[1]: the kernel's target answers 0xa0 itself, no disk behind it "
        "ever meets one",
    ),
    "an LBA of a command that has none": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: [read, 0x12], answer: busy, lba: 7}]}}",
        "4:78: disks.first.tcmu.faults[0].lba: a command 0x12 names no blocks, it has no LBA",
    ),
    "an LBA of a flush among others": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: [0x91, read], answer: busy, lba: 7}]}}",
        "4:78: disks.first.tcmu.faults[0].lba: a flush is of the whole disk, it has no LBA",
    ),
    "a flush with an LBA": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: flush, answer: silence, lba: 7}]}}",
        "4:74: disks.first.tcmu.faults[0].lba: a flush is of the whole disk, it has no LBA",
    ),
    "a fault of a disk that never happens": (
        "first: {loop: {size: 64MiB, block: 4KiB}}",
        "first: {tcmu: {size: 64MiB, faults: [{on: flush, answer: silence, times: 0}]}}",
        "4:76: disks.first.tcmu.faults[0].times: must be 1 to 1000000000, not 0",
    ),
    "a node that does not exist": (
        "block: 4KiB}}\n  second",
        "block: 4KiB, node: lop}}\n  second",
        "4:50: disks.first.loop.node: unknown word 'lop'. Did you mean 'loop'?",
    ),
    "unknown disk": (
        "disk: first",
        "disk: frist",
        "7:13: controllers.a.disk: the rig has no disk 'frist'. Did you mean 'first'?",
    ),
    "one disk for two controllers": (
        "disk: second",
        "disk: first",
        "8:13: controllers.b.disk: disk 'first' already belongs to controller a",
    ),
    "three controllers": (
        "link: {eth",
        "  c: {disk: second}\nlink: {eth",
        "7:3: controllers: a rig has one controller or two, not 3",
    ),
    "a LUN mode that does not exist": (
        "1: frozen",
        "1: froze",
        "7:43: controllers.a.luns.1: unknown word 'froze'. Did you mean 'frozen'?",
    ),
    "a LUN number that does not exist": (
        "1: frozen",
        "256: frozen",
        "7:40: controllers.a.luns: the number of a LUN must be 0 to 255, not 256",
    ),
    "redirection without a second controller": (
        "{0: redirect, 1: frozen, 2: {forward: b/0}}}\n  b: {disk: second, luns: {0: own}}",
        "{0: redirect}}",
        "7:30: controllers.a.luns.0.redirect: the rig has no second controller to redirect to",
    ),
    "frozen original of nothing": (
        "0: redirect, 1: frozen",
        "0: own, 1: frozen",
        "7:38: controllers.a.luns.1.frozen: controller a has no redirect LUN. Only those have a frozen original.",
    ),
    "frozen original of another mode": (
        "1: frozen",
        "1: {frozen: 2}",
        "7:52: controllers.a.luns.1.frozen: LUN 2 of controller a is no redirect LUN. Only those have a frozen "
        "original.",
    ),
    "frozen original of which LUN": (
        "1: frozen",
        "3: {redirect: {size: 4KiB}}, 1: frozen",
        "7:72: controllers.a.luns.1.frozen: controller a has several redirect LUNs. Name one: {frozen: 0}.",
    ),
    "forward to nowhere": (
        "forward: b/0",
        "forward: c/0",
        "7:64: controllers.a.luns.2.forward: the rig has no controller 'c'. Known: a, b.",
    ),
    "forward to a LUN that is not there": (
        "forward: b/0",
        "forward: b/7",
        "7:64: controllers.a.luns.2.forward: controller b has no LUN 7. Its LUNs: 0.",
    ),
    "forward to itself": (
        "forward: b/0",
        "forward: a/0",
        "7:64: controllers.a.luns.2.forward: controller a cannot forward to itself",
    ),
    "forward to a forwarded LUN": (
        "luns: {0: own}",
        "luns: {0: {forward: a/0}}",
        "7:64: controllers.a.luns.2.forward: b/0 is forwarded itself. A request is passed on once.",
    ),
    "forward to no address": (
        "forward: b/0",
        "forward: b",
        "7:64: controllers.a.luns.2.forward: 'b' is no LUN of a controller; write it like b/0",
    ),
    "block sizes that differ": (
        "128MiB, block: 4KiB",
        "128MiB, block: 512B",
        "8:13: controllers.b.disk: blocks of 512 bytes on disk second cannot hold those of 4096 bytes on disk "
        "first. Give both disks the same block size.",
    ),
    "second disk too small": (
        "128MiB",
        "88MiB",
        "8:13: controllers.b.disk: second disk too small: the store on disk second has 16896 blocks, "
        "redirection can fill 16384 and needs 18432 with an eighth to spare. Give the store 72MiB, on a bigger "
        "disk where it must be, or write `store: {overcommit: allow}` and expect writes to fail once it is full.",
    ),
    "store too small": (
        "luns: {0: own}",
        "luns: {0: own}, store: {size: 64MiB}",
        "8:44: controllers.b.store: second disk too small: the store on disk second has 16384 blocks, "
        "redirection can fill 16384 and needs 18432 with an eighth to spare. Give the store 72MiB, on a bigger "
        "disk where it must be, or write `store: {overcommit: allow}` and expect writes to fail once it is full.",
    ),
    "store with too little left": (
        "luns: {0: own}",
        "luns: {0: {own: {size: 128MiB}}}",
        "8:13: controllers.b.disk: 0 blocks of disk second (32768 blocks of 4096 bytes) are left for the store",
    ),
    "store that nobody needs": (
        "disk: first,",
        "disk: first, store: {size: 1MiB},",
        "7:27: controllers.a.store: nobody redirects to controller a. Take the store out, or redirect a LUN to it.",
    ),
    "overcommit that is no word": (
        "luns: {0: own}",
        "luns: {0: own}, store: {overcommit: yes}",
        "8:57: controllers.b.store.overcommit: unknown word 'yes'. Known: refuse, allow.",
    ),
    "two LUNs that take the rest": (
        "1: frozen",
        "1: frozen, 3: own",
        "7:54: controllers.a.luns.3.own: LUNs 0 and 3 both have no size. Only one LUN can take the rest of the "
        "disk.",
    ),
    "LUNs that do not fit their disk": (
        "1: frozen",
        "1: frozen, 3: {own: {size: 65MiB}}",
        "7:30: controllers.a.luns.0.redirect: nothing of disk first (16384 blocks of 4096 bytes) is left for LUN 0",
    ),
    "LUN behind the end of its disk": (
        "luns: {0: own}",
        "luns: {0: {own: {size: 129MiB}}}",
        "8:37: controllers.b.luns.0.own: LUN 0 ends 256 blocks behind disk second (32768 blocks of 4096 bytes)",
    ),
    "LUN that is no whole number of blocks": (
        "luns: {0: own}",
        "luns: {0: {own: {size: 5000B}}}",
        "8:37: controllers.b.luns.0.own: LUN 0 is 5000 bytes, not a whole number of 4096-byte blocks",
    ),
    "link that does not exist": (
        "{ethernet: {stall: 30s}}",
        "ethernot",
        "9:7: link: unknown word 'ethernot'. Did you mean 'ethernet'?",
    ),
    "TLS that is neither made nor given": (
        "stall: 30s}",
        "stall: 30s, tls: genrated}",
        "9:36: link.ethernet.tls: unknown word 'genrated'. Did you mean 'generated'?",
    ),
    "TLS that is made and has files": (
        "stall: 30s}",
        "tls: {generated: {authority: ca.pem}}}",
        "9:37: link.ethernet.tls.generated: unknown key 'authority'",
    ),
    "TLS without the files of a controller": (
        "stall: 30s}",
        "tls: {files: {a: {authority: x, certificate: y, key: z}}}}",
        "9:32: link.ethernet.tls.files: key 'b' is missing",
    ),
    "TLS without a key": (
        "stall: 30s}",
        "tls: {files: {a: {authority: x, certificate: y}, b: {}}}}",
        "9:36: link.ethernet.tls.files.a: key 'key' is missing",
    ),
    "TLS on a serial line": (
        "{ethernet: {stall: 30s}}",
        "{serial: {tls: generated}}",
        "9:17: link.serial: unknown key 'tls'. Known: baud, stall, flow, compression, devices.",
    ),
    "host path that does not exist": ("path: nbd", "path: nbt", "10:14: host.path: unknown word 'nbt'. Did you mean 'nbd'?"),
    "scenario without steps": (
        "    expect: {ack",
        "  - {name: empty, steps: []}\n  - name: other\n    steps: [judge: all]\n    expect: {ack",
        "20:26: scenarios[1].steps: a scenario without steps proves nothing",
    ),
    "two scenarios of one name": (
        "    expect: {ack",
        "  - name: a story\n    steps: [judge: all]\n    expect: {ack",
        "20:11: scenarios[1].name: another scenario is called 'a story'",
    ),
    "step that does not exist": (
        "- fill:",
        "- fil:",
        "14:9: scenarios[0].steps[0]: unknown key 'fil'. Did you mean 'fill'?",
    ),
    "step that is two": (
        "- fill: {lun: 0}",
        "- fill: {lun: 0}\n        flush: {lun: 0}",
        "14:9: scenarios[0].steps[0]: needs exactly one of fill, redirect, commit, discard, flush, backup, "
        "restart, crash, judge, workload, not fill and flush together",
    ),
    "faults beside another step": (
        "- fill: {lun: 0}",
        "- fill: {lun: 0}\n        faults: []",
        "15:17: scenarios[0].steps[0].faults: only a workload can have 'faults'",
    ),
    "LUN that the controller does not have": (
        "fill: {lun: 0}",
        "fill: {lun: 9}",
        "14:21: scenarios[0].steps[0].fill.lun: controller a has no LUN 9. Its LUNs: 0, 1, 2.",
    ),
    "LUN of no controller": (
        "fill: {lun: 0}",
        "fill: {lun: c/0}",
        "14:21: scenarios[0].steps[0].fill.lun: the rig has no controller 'c'. Known: a, b.",
    ),
    "LUN that is no LUN": (
        "fill: {lun: 0}",
        "fill: {lun: zero}",
        "14:21: scenarios[0].steps[0].fill.lun: 'zero' is no LUN; write it like 0 or b/0",
    ),
    "fill of a frozen LUN": (
        "fill: {lun: 0}",
        "fill: {lun: 1}",
        "14:21: scenarios[0].steps[0].fill.lun: LUN a/1 is frozen and cannot be written",
    ),
    "redirection of a LUN that is not meant to": (
        "- redirect: {lun: 0}",
        "- redirect: {lun: b/0}",
        "15:25: scenarios[0].steps[1].redirect.lun: LUN b/0 is not a redirect LUN",
    ),
    "backup of a LUN that changes": (
        "backup: {lun: 1}",
        "backup: {lun: 0}",
        "18:31: scenarios[0].steps[2].while.backup.lun: LUN a/0 is not frozen. A backup is compared with a "
        "frozen original.",
    ),
    "writes to a frozen LUN": (
        "workload: {lun: 0",
        "workload: {lun: 1",
        "16:25: scenarios[0].steps[2].workload.lun: LUN a/1 is frozen and cannot be written",
    ),
    "mix that is not whole": (
        "read: 40",
        "read: 30",
        "16:67: scenarios[0].steps[2].workload.mix: adds up to 90 percent, it must be 100",
    ),
    "range that is none": (
        "1..8",
        "8..1",
        "16:56: scenarios[0].steps[2].workload.blocks: 8..1 is no range; the first number is at least 1, the second not "
        "smaller",
    ),
    "range that begins with nothing": (
        "1..8",
        "0..8",
        "16:56: scenarios[0].steps[2].workload.blocks: 0..8 is no range; the first number is at least 1, the second not "
        "smaller",
    ),
    "range that is no number": (
        "1..8",
        "few",
        "16:56: scenarios[0].steps[2].workload.blocks: 'few' is no number of blocks; write it like 8 or 1..16",
    ),
    "operation bigger than the volume": (
        "1..8",
        "1..16385",
        "16:56: scenarios[0].steps[2].workload.blocks: 16385 blocks do not fit the volume, which has 16384",
    ),
    "fault at no share": (
        "at: 30%",
        "at: 30",
        "17:23: scenarios[0].steps[2].faults[0].at: '30' is no share of the operations; write it like 30%",
    ),
    "fault without a moment": (
        "at: 30%, ",
        "",
        "17:18: scenarios[0].steps[2].faults[0]: needs exactly one of at, after, every",
    ),
    "fault that does two things": (
        "link: cut, for: 3s",
        "link: cut, for: 3s, crash: a",
        "17:18: scenarios[0].steps[2].faults[0]: needs exactly one of crash, restart, link, not link and crash "
        "together",
    ),
    "fault of a controller that is not there": (
        "crash: b",
        "crash: c",
        "17:84: scenarios[0].steps[2].faults[1].crash: the rig has no controller 'c'. Known: a, b.",
    ),
    "fault that the count never reaches": (
        "acknowledged: 50",
        "acknowledged: 500",
        "17:72: scenarios[0].steps[2].faults[1].after.acknowledged: never comes to 500: the workload has 100 "
        "operations",
    ),
    "cut without an end": (
        "link: cut, for: 3s",
        "link: cut",
        "17:18: scenarios[0].steps[2].faults[0]: key 'for' is missing. Say how long it lasts, like "
        "`for: 3s`.",
    ),
    "crash with an end": (
        "crash: b}",
        "crash: b, for: 3s}",
        "17:92: scenarios[0].steps[2].faults[1].for: a crash has no duration; only a link fault lasts",
    ),
    "link fault that does not exist": (
        "link: cut",
        "link: cutt",
        "17:34: scenarios[0].steps[2].faults[0].link: unknown word 'cutt'. Did you mean 'cut'?",
    ),
    "property that does not exist": (
        "judge: all",
        "judge: [exact, conserve]",
        "19:24: scenarios[0].steps[3].judge[1]: unknown word 'conserve'. Did you mean 'conserved'?",
    ),
    "judge of nothing": (
        "judge: all",
        "judge: []",
        "19:16: scenarios[0].steps[3].judge: names no property. Write `all`, or a list of properties.",
    ),
    "count that does not exist": (
        'acknowledged: ">=',
        'acknowleged: ">=',
        "20:14: scenarios[0].expect: unknown key 'acknowleged'. Did you mean 'acknowledged'?",
    ),
    "comparison that is none": (
        '">= 10"',
        '"~ 10"',
        "20:28: scenarios[0].expect.acknowledged: '~ 10' is no comparison; write it like \">= 100\" or 0",
    ),
    "text that is not YAML": (
        "seed: 42",
        "seed: [42",
        "3:6: not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'",
    ),
    "a tab for indentation": (
        "seed: 42",
        "seed: 42\n\tx: 1",
        "3:1: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
    ),
    "a character that text does not have": (
        "rig: good",
        "rig: go\x07od",
        "1:8: not YAML: a character that text does not have",
    ),
    "two documents": (
        "seed: 42",
        "---\nseed: 42",
        "2:1: not YAML: expected a single document in the stream, but found another document",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_with_place_reason_and_next_step(mistake: str) -> None:
    old, new, message = MISTAKES[mistake]
    assert GOOD.count(old) == 1
    with pytest.raises(RigFileError) as caught:
        parse_rig(GOOD.replace(old, new), Path("rig.yaml"))
    assert str(caught.value) == f"rig.yaml:{message}"
    assert caught.value.exit_code is (ExitCode.REFUSED if " is a node, " in message else ExitCode.USAGE)


def test_the_good_rig_is_good() -> None:
    assert parse_rig(GOOD, Path("rig.yaml")).name == "good"


def test_rig_without_scenarios_is_refused() -> None:
    before, _, _ = GOOD.partition("scenarios:")
    with pytest.raises(RigFileError, match=r"^rig.yaml:11:12: scenarios: a rig without scenarios proves nothing$"):
        parse_rig(before + "scenarios: []\n", Path("rig.yaml"))


@pytest.mark.parametrize("fault", ["replay", "forge"])
def test_fault_that_needs_readable_frames_is_refused_under_tls(fault: str) -> None:
    text = GOOD.replace("ethernet: {stall: 30s}", "ethernet: {tls: generated}").replace("cut, for: 3s", f"{{{fault}: 1}}")
    with pytest.raises(RigFileError) as caught:
        parse_rig(text, Path("rig.yaml"))
    assert str(caught.value) == (
        f"rig.yaml:17:34: scenarios[0].steps[2].faults[0].link: '{fault}' needs frames that can be read, and TLS hides "
        "them. Use a link without `tls`."
    )


def test_link_fault_needs_a_link() -> None:
    text = """\
rig: one
disks: {d: {loop: {size: 1MiB}}}
controllers: {a: {disk: d, luns: {0: own}}}
scenarios:
  - name: no link here
    steps:
      - workload: {lun: 0, ops: 10, mix: {write: 100}}
        faults: [{at: 50%, link: cut, for: 1s}]
"""
    with pytest.raises(RigFileError, match=r"^rig.yaml:8:34: .*\.link: a rig with one controller has no link$"):
        parse_rig(text, Path("rig.yaml"))


LAB = """\
rig: apart
lab: {kernels: each}
disks: {one: {%s: {size: 1MiB}}, two: {tcm-loop: {size: 4MiB, backing: file}}}
controllers: {a: {disk: one, luns: {0: redirect}}, b: {disk: two}}
link: {%s: {}}
scenarios:
  - name: machines of their own
    steps:
      - %s
      - workload: {lun: 0, ops: 10, mix: {write: 100}}
        faults: [{at: 50%%, %s}]
"""
CRASH_OF_MEMORY = (
    "a crash of controller a cuts the power of its kernel, and disk 'one' lies in the memory of that. "
    "Use a tcm-loop disk with `backing: file`: it keeps what was flushed."
)


@pytest.mark.parametrize("kind", ["scsi-debug", "tcmu"])
def test_power_cut_of_a_kernel_whose_disk_would_be_lost_is_refused(kind: str) -> None:
    for step, fault, place in (
        ("crash: a", "crash: b", "9:16: scenarios[0].steps[0].crash"),
        ("crash: b", "crash: a", "11:35: scenarios[0].steps[1].faults[0].crash"),
    ):
        with pytest.raises(RigFileError) as caught:
            parse_rig(LAB % (kind, "ethernet", step, fault), Path("rig.yaml"))
        assert str(caught.value) == f"rig.yaml:{place}: {CRASH_OF_MEMORY}"


def test_power_cut_of_a_kernel_whose_disk_keeps_its_data_is_a_rig() -> None:
    rig = parse_rig(LAB % ("tcm-loop", "ethernet", "crash: a", "crash: b"), Path("rig.yaml"))
    assert rig.crashing == {"a", "b"}
    rig = parse_rig(LAB % ("scsi-debug", "ethernet", "restart: a", "crash: b"), Path("rig.yaml"))
    assert rig.crashing == {"b"}


ALIKE = """\
rig: memory
disks: {one: {scsi-debug: {size: 8MiB, block: 512B}}, two: {tcmu: {size: 1MiB, block: 512B}},
        three: {scsi-debug: {size: 8MiB, block: %s}}}
controllers: {a: {disk: one, luns: {0: own}}, b: {disk: three, luns: {0: own}}}
lab: {kernels: %s}
scenarios: [{name: x, steps: [{judge: all}]}]
"""


def test_disks_of_scsi_debug_may_differ_where_no_two_share_a_kernel() -> None:
    for block, kernels in (("512B", "shared"), ("512B", "each"), ("4KiB", "each")):
        assert parse_rig(ALIKE % (block, kernels), Path("rig.yaml")).name == "memory"
    with pytest.raises(RigFileError) as caught:
        parse_rig(ALIKE % ("4KiB", "shared"), Path("rig.yaml"))
    assert str(caught.value) == (
        "rig.yaml:3:16: disks.three: has 8MiB in blocks of 4KiB, and one has 8MiB in blocks of 512B: all scsi-debug disks "
        "of a kernel are alike. Give them one size and one block size, or each controller a kernel: `lab: {kernels: each}`."
    )


@pytest.mark.parametrize("kernels", ["each", "shared"])
@pytest.mark.parametrize("fault", ["replay", "forge"])
@pytest.mark.parametrize("link", ["ethernet", "serial"])
def test_fault_of_a_session_is_refused_on_a_cable_that_knows_none(kernels: str, fault: str, link: str) -> None:
    text = LAB.replace("each", kernels) % ("tcm-loop", link, "crash: a", f"link: {{{fault}: 1}}")
    if (kernels, link) != ("each", "ethernet"):
        assert parse_rig(text, Path("rig.yaml")).name == "apart"
        return
    with pytest.raises(RigFileError) as caught:
        parse_rig(text, Path("rig.yaml"))
    assert str(caught.value) == (
        f"rig.yaml:11:34: scenarios[0].steps[1].faults[0].link: '{fault}' needs a cable that knows the frames of the link; "
        "this one carries Ethernet frames. Have it in a rig whose controllers share a machine."
    )


def test_lun_of_two_redirecting_controllers_must_be_named() -> None:
    text = """\
rig: crossed
disks: {one: {loop: {size: 64MiB}}, two: {loop: {size: 64MiB}}}
controllers:
  a: {disk: one, luns: {0: redirect}}
  b: {disk: two, luns: {0: redirect}}
scenarios:
  - {name: which one, steps: [{fill: {lun: 0}}]}
"""
    with pytest.raises(RigFileError, match=r"^rig.yaml:7:44: .*lun: LUN 0 of which .* is not said\. Write it like a/0\.$"):
        parse_rig(text, Path("rig.yaml"))


SG = "rig: real\ndisks:\n  d: {sg: {%s}}\ncontrollers: {a: {disk: d, luns: {0: own}}}\nscenarios: []\n"


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ("size: 1GiB, block: 512B", 2, "3:11: disks.d.sg: key 'window' is missing"),
        (
            "wwn: naa.5, size: 1073741824, block: 512B, window: {lba: 0, blocks: 8}",
            2,
            "3:30: disks.d.sg.size: size '1073741824' has no unit; write it like 64MiB",
        ),
        ("wwn: naa.5, size: 1GiB, window: {lba: 0, blocks: 8}", 2, "3:11: disks.d.sg: key 'block' is missing"),
        (
            "size: 1GiB, block: 512B, window: {lba: 0, blocks: 8}",
            3,
            "3:11: disks.d.sg: names no disk. Give its wwn or its serial; `hwvirt scan` prints both.",
        ),
        (
            "serial: 0815, size: 1GiB, block: 512B, window: {lba: 2097150, blocks: 3}",
            3,
            "3:59: disks.d.sg.window: ends 1 blocks behind the end of the disk",
        ),
        ("path: /dev/sda", 2, "3:12: disks.d.sg: unknown key 'path'. Known: size, block, window, wwn, serial."),
        *(
            (
                f"{key}: /dev/sda, size: 1GiB, block: 512B, window: {{lba: 8, blocks: 8}}",
                3,
                f"3:{column}: disks.d.sg.{key}: '/dev/sda' is a node, and may be another disk tomorrow. "
                "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.",
            )
            for key, column in (("wwn", 17), ("serial", 20))
        ),
    ],
)
def test_real_disk_is_named_by_identity_size_and_window(keys: str, code: int, message: str) -> None:
    with pytest.raises(RigFileError) as caught:
        parse_rig(SG % keys, Path("rig.yaml"))
    assert str(caught.value) == f"rig.yaml:{message}"
    assert (caught.value.exit_code, isinstance(caught.value, SafetyRefusal)) == (code, code == 3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("wwn: naa.5, serial: A", "wwn: naa.5", "wwn naa.5"),
        ("wwn: naa.5c", "wwn: naa.5C, serial: B", "wwn naa.5c"),
        ("serial: ZL2001", "serial: ZL2001", "serial ZL2001"),
        ("wwn: naa.5, serial: ZL2001", "serial: ZL2001", "serial ZL2001"),
        ("wwn: naa.5, serial: A", "wwn: naa.6, serial: A", ""),
        ("serial: zl2001", "serial: ZL2001", ""),
        ("wwn: naa.5", "serial: ZL2001", ""),
    ],
)
def test_one_real_disk_cannot_be_two_disks(one: str, other: str, same: str) -> None:
    rest = "size: 1GiB, block: 512B, window: {lba: 8, blocks: 80000}"
    text = f"""\
rig: real
disks:
  first: {{sg: {{{one}, {rest}}}}}
  second: {{sg: {{{other}, {rest}}}}}
controllers: {{a: {{disk: first, luns: {{0: own}}}}}}
scenarios: [{{name: x, steps: [{{judge: all}}]}}]
"""
    if not same:
        parse_rig(text, Path("rig.yaml"))
        return
    with pytest.raises(RigFileError) as caught:
        parse_rig(text, Path("rig.yaml"))
    message = f"rig.yaml:4:11: disks.second: is the same disk as first ({same}). `hwvirt scan` shows which disks are here."
    assert (str(caught.value), caught.value.exit_code) == (message, ExitCode.REFUSED)


def test_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read the rig file .*/none\.yaml: No such file or directory\.$"):
        load_rig(tmp_path / "none.yaml")


def test_file_that_is_empty_is_told_how_to_begin(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    with pytest.raises(RigFileError) as caught:
        load_rig(path)
    assert str(caught.value) == f"{path}:1:1: the file is empty. `hwvirt new rig NAME` writes one that runs."


def test_file_that_is_not_text_is_told_where(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"rig: x\nseed: \xff\n")
    with pytest.raises(RigFileError) as caught:
        load_rig(path)
    assert str(caught.value) == f"{path}:2:7: not YAML: not UTF-8 text"


@pytest.mark.parametrize("text", ["[1, 2]", "words", "&a [*a]", "{[1]: 2}", "? {a: b}\n: c", "!!python/name:os.system x"])
def test_file_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(RigFileError):
        parse_rig(text, Path("rig.yaml"))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "], ids=["list", "mapping", "block list"])
def test_file_that_is_nested_without_end_is_refused(opening: str) -> None:
    with pytest.raises(RigFileError, match=r"^rig\.yaml:1:1: lists or mappings lie too deep in each other$"):
        parse_rig(opening * 1000, Path("rig.yaml"))


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0", 0),
        ("000", 0),
        ("010", 10),
        ("1_0", 10),
        ("0_1", 1),
        ("0" * 40 + "7", 7),
        ("0" * 6000 + "7", 7),
        ("_".join("0" * 40 + "42"), 42),
        (str((1 << 63) - 1), (1 << 63) - 1),
        (str(1 << 63), None),
        *(("1" * digits + "_1", None) for digits in range(27, 33)),
        ("1" * 6000, None),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_number_is_taken_as_it_is_written_however_long(written: str, number: int | None) -> None:
    text = GOOD.replace("seed: 42", f"seed: {written}")
    if number is not None:
        assert parse_rig(text, Path("rig.yaml")).seed == number
        return
    with pytest.raises(RigFileError) as caught:
        parse_rig(text, Path("rig.yaml"))
    assert str(caught.value) == f"rig.yaml:2:7: seed: must be 0 to {(1 << 63) - 1}, not {written}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 8), st.sampled_from(TOKENS)), min_size=1, max_size=4))
def test_damaged_file_is_a_located_error_or_still_a_rig(damages: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for offset, length, token in damages:
        text = text[:offset] + token + text[offset + length :]
    try:
        parse_rig(text, Path("rig.yaml"))
    except RigFileError as error:
        assert 1 <= error.line <= text.count("\n") + 1
        assert error.column >= 1
