"""gdb commands for a program that runs on spanguard, alive or as a core file.

  spanguard addr ADDRESS              what lies at an address: object, state, who made and freed it
  spanguard bt alloc|free ADDRESS     the stack of its allocation or free (records=1, mode=debug or guard, samples)
  spanguard spans [CLASS]             all spans, or those of a slot size
  spanguard quarantine                what is held back from reuse
  spanguard last N [ADDRESS]          the last calls (ring=N), newest first; those about an object

Nothing is called in the process: structs are read by the debug information of
libspanguard.so, which must not be stripped. Load it by `source spanguard-gdb.py`, or let
gdb do so: installed as libspanguard.so-gdb.py beside the library, in a directory that
`add-auto-load-safe-path` names.
"""
import gdb

ADDRESS_BITS = 47
STEPS_BACK = 1 << 16        # granules of guard mode looked at for the start of a large object


class Missing(gdb.GdbError):
    pass


def raw(value):
    """The number or pointer inside of an atomic."""
    while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT and len(value.type.fields()) == 1:
        value = value[value.type.fields()[0]]
    return value


def number(value):
    return int(raw(value))


def pointer(value, struct):
    return raw(value).cast(gdb.lookup_type("struct " + struct).pointer())


class Library:
    """The symbols of libspanguard.so, or of a program that it is linked into."""

    def __init__(self):
        for objfile in gdb.objfiles():
            if objfile.is_valid() and objfile.lookup_global_symbol("arena_map") is not None:
                self.objfile = objfile
                self.check_metadata()
                return
        raise Missing("spanguard is not in this process, or its debug information is missing")

    def check_metadata(self):
        """gdb's own core files have zeros behind a guard that is a marker: each region of
        the metadata, which lies between guards, begins with a record that is never zero."""
        region = pointer(self.mheap_["meta"]["regions"], "persistent_region")
        while int(region):
            if int(region["base"]) >= int(region["end"]):
                raise Missing("what spanguard knows of the heap is not in this core file: generate-core-file leaves out "
                              "memory behind guard pages; run the program with guards=mprotect, or take the kernel's core file")
            region = region["next"]

    def __getattr__(self, name):
        symbol = self.objfile.lookup_global_symbol(name) or self.objfile.lookup_static_symbol(name)
        if symbol is None:
            raise Missing(f"{self.objfile.filename}: no symbol {name}")
        return symbol.value()

    def static(self, file, name):
        """A static variable of one source file; NULL where this library has no such file."""
        for symbol in gdb.lookup_static_symbols(name):
            table = symbol.symtab
            if table is not None and table.filename.endswith("/" + file) and table.objfile == self.objfile:
                return symbol.value()
        return None


def bits(words, count):
    """A bitmap of `count` words as one integer."""
    data = gdb.selected_inferior().read_memory(int(words), 8 * count)
    return int.from_bytes(bytes(data), "little")


# ---------------------------------------------------------------- objects

class Object:
    """What is known of the object at or around an address."""

    def __init__(self, base, size, state, where, record=None):
        self.base, self.size, self.state, self.where, self.record = base, size, state, where, record


class Record:
    """Who allocated and freed it."""

    def __init__(self, library, side):
        serial = number(side["serial_slack"])
        slack_bits = int(library.SIDE_SLACK_BITS)
        self.library, self.side = library, side
        self.serial, self.slack = serial >> slack_bits, serial & ((1 << slack_bits) - 1)

    def line(self, verb, who, serial):
        name = self.library.api_names[int(who["api"])].string()
        return f"{verb} by {name}, thread {int(who['tid'])}" + (f", number {serial}" if serial else "")

    def lines(self, freed):
        out = [self.line("allocated", self.side["alloc"], self.serial)]
        if freed:
            after = number(self.side["free_serial"])
            out.append(self.line("freed", self.side["freed"], 0) + (f", after allocation {after}" if after else ""))
        return out

    def stack(self, which):
        return depot_stack(self.library, int(self.side[f"{which}_stack"]))


class SampledRecord:
    """The same of a sampled object, which keeps its stacks itself."""

    def __init__(self, slot):
        self.slot = slot

    def lines(self, freed):
        out = [f"allocated by thread {int(self.slot['allocated']['tid'])}"]
        return out + ([f"freed by thread {int(self.slot['freed']['tid'])}"] if freed else [])

    def stack(self, which):
        kept = self.slot["allocated" if which == "alloc" else "freed"]
        return [int(kept["pcs"][i]) for i in range(int(kept["frames"]))]


def depot_stack(library, ident):
    depot = library.static("depot.c", "depot")
    if ident == 0 or depot is None:
        return []
    units = int(library.CHUNK_UNITS)
    chunk = int(raw(depot["chunks"][ident // units]))
    if chunk == 0:
        return []
    at = chunk + ident % units * 8
    memory = gdb.selected_inferior()
    frames = int.from_bytes(bytes(memory.read_memory(at + 4, 4)), "little") >> int(library.HASH_BITS)
    data = bytes(memory.read_memory(at + 8, 8 * frames))
    return [int.from_bytes(data[8 * i:8 * i + 8], "little") for i in range(frames)]


# ---------------------------------------------------------------- spans

class Span:
    def __init__(self, library, pointer_):
        self.library, self.p = library, pointer_.dereference()
        self.address = int(pointer_)
        self.base, self.elem = int(self.p["base"]), int(self.p["elem_bytes"])
        self.pages, self.slots = int(self.p["npages"]), int(self.p["nelems"])
        self.bytes = self.pages << int(library.PAGE_SHIFT)
        kind, noscan = int(self.p["span_class"]), int(library.SPAN_NOSCAN)
        self.tiny = kind == int(library.SPAN_TINY)
        self.noscan = self.tiny or kind >= noscan
        self.large = not self.tiny and kind % noscan == 0

    @property
    def state(self):
        return {0: "dead", 1: "in use", 2: "in the quarantine"}.get(number(self.p["state"]), "of unknown state")

    @property
    def owner(self):
        owner = pointer(self.p["owner"], "mcache")
        if int(owner) in (0, int(self.library.mcache_none.address)):
            return "nobody"
        return f"thread {int(owner['tid'])}"

    def name(self):
        what = "large" if self.large else "tiny" if self.tiny else f"class {self.elem}"
        return f"{what}, {'noscan' if self.noscan else 'scan'}"

    def slot_bits(self, field):
        """live or remote: every other word of the span's bits."""
        word = self.p["bits"].type.target()
        first = next(f.bitpos for f in word.fields() if f.name == field) // 8
        data = gdb.selected_inferior().read_memory(int(self.p["bits"].address), word.sizeof * int(self.p["nwords"]))
        words = (data[i:i + 8] for i in range(first, len(data), word.sizeof))
        return int.from_bytes(b"".join(bytes(w) for w in words), "little")

    def available(self):
        return bits(self.p["avail"], int(self.p["nwords"])) if int(self.p["avail"]) else 0

    def window(self):
        """Slots that the owner will hand out next."""
        owner = pointer(self.p["owner"], "mcache")
        if int(owner) in (0, int(self.library.mcache_none.address)):
            return set()
        window = owner["alloc"][int(self.p["span_class"])]
        if int(window["span"]) != self.address:
            return set()
        return {int(window["order"][i]) for i in range(int(window["n"]))}

    def side(self):
        return pointer(self.p["side"], "side_span") if int(self.p["side"]) else None

    def freed_bits(self):
        side = self.side()
        return bits(side["freed"].address, int(self.p["nwords"])) if side is not None else 0

    def live(self):
        """Slots that the program has not freed."""
        return self.slot_bits("live") & ~self.slot_bits("remote") & ~self.freed_bits()

    def slot_state(self, slot):
        bit = 1 << slot
        if number(self.p["state"]) == 2:
            return "freed, in the quarantine"
        if self.slot_bits("live") & bit:
            return "live" if self.live() & bit else "freed, not reused yet"
        if slot in self.window() or self.available() & bit:
            return "free"
        return "freed, not swept yet"

    def record(self, slot):
        side = self.side()
        record = Record(self.library, side["records"][slot]) if side is not None else None
        return record if record is not None and record.serial else None

    def object_at(self, address):
        slot = 0 if self.large else (address - self.base) // self.elem
        where = f"span {self.base:#x} of {self.bytes} bytes, {self.name()}, {self.state}, owner {self.owner}"
        if slot >= self.slots:
            return Object(self.base, self.bytes, "behind the last slot", where)
        record = self.record(slot)
        base = self.base + slot * self.elem
        size = self.elem - record.slack if record is not None else self.elem
        place = where if self.large else f"slot {slot} of {self.slots}; " + where
        return Object(base, size, self.slot_state(slot), place, record)


class Spans:
    """The arena map."""

    def __init__(self, library):
        self.library = library
        self.page_shift, self.arena_shift = int(library.PAGE_SHIFT), int(library.ARENA_SHIFT)
        self.pages = 1 << (self.arena_shift - self.page_shift)

    def arena(self, index):
        p = pointer(self.library.arena_map["slots"][index], "heap_arena")
        return p if int(p) else None

    def used(self, arena):
        return bits(arena["page_in_use"].address, self.pages // 64)

    def span(self, arena, page):
        p = pointer(arena["spans"][page], "mspan")
        return Span(self.library, p) if int(p) else None

    def containing(self, address):
        """The span an address lies in; the start of a large one may be some arenas before."""
        index, page = address >> self.arena_shift, (address >> self.page_shift) & (self.pages - 1)
        while (arena := self.arena(index)) is not None:
            below = self.used(arena) & ((1 << (page + 1)) - 1)
            if below:
                span = self.span(arena, below.bit_length() - 1)
                return span if span is not None and address - span.base < span.bytes else None
            index, page = index - 1, self.pages - 1
        return None

    def all(self):
        arena = pointer(self.library.arena_map["all"], "heap_arena")
        found = []
        while int(arena):
            used = self.used(arena)
            while used:
                page = (used & -used).bit_length() - 1
                used &= used - 1
                span = self.span(arena, page)
                if span is not None:
                    found.append(span)
            arena = arena["next"]
        return sorted(found, key=lambda span: span.base)


# ---------------------------------------------------------------- rooms with objects outside of spans

def guarded_object(library, address):
    """mode=guard: the slot whose pages, or the guard behind them, an address is in."""
    space = library.static("guardspace.c", "space")
    for i in range(number(space["dir"]["n"]) if space is not None else 0):
        region = space["dir"]["region"][i]
        granule = int(library.GUARD_GRANULE_PAGES) * int(space["dir"]["page_bytes"])
        if not 0 <= address - int(region["base"]) < int(region["bytes"]):
            continue
        at = (address - int(region["base"])) // granule
        for k in range(at, max(-1, at - STEPS_BACK), -1):
            record = region["record"][k]
            if number(record["state"]) == 0 or int(record["data"]) > address:
                continue
            return guarded(library, record)
        return Object(address, 0, "free", "address space of guarded objects")
    return None


def guarded(library, record):
    state = {1: "on its way", 2: "live", 3: "being freed", 4: "freed", 5: "live, reported", 6: "freed, reported"}
    return Object(int(record["base"]), int(record["bytes"]), state.get(number(record["state"]), "?"), "a guarded object",
                  Record(library, record["side"]))


def sampled_object(library, address):
    pool = library.static("sample.c", "pool")
    if pool is None or not 0 <= address - int(pool["base"]) < int(pool["bytes"]):
        return None
    index = (address - int(pool["base"])) // (int(pool["data_bytes"]) + int(pool["edge_bytes"]))
    slots = pool["slots"].type.range()[1] + 1
    slot = pool["slots"][min(index, slots - 1)]
    states = [field.name for field in gdb.lookup_type("enum sample_state").fields()]
    state = states[number(slot["state"])].split("_", 1)[1].lower()
    return Object(int(slot["base"]), int(slot["bytes"]), state, "a sampled object", SampledRecord(slot))


def object_at(address):
    library = Library()
    if address >> ADDRESS_BITS:
        return None
    for room in (guarded_object, sampled_object):
        found = room(library, address)
        if found is not None:
            return found
    span = Spans(library).containing(address)
    return span.object_at(address) if span is not None else None


# ---------------------------------------------------------------- commands

def offset_of(address, found):
    if address < found.base:
        return f"{found.base - address} bytes before"
    if address >= found.base + found.size:
        return f"{address - found.base - found.size} bytes after"
    return f"{address - found.base} bytes inside of"


def said_address(text):
    return int(gdb.parse_and_eval(text).cast(gdb.lookup_type("unsigned long")))


def functions_at(pc):
    """The function, after those that are inlined into it there, the innermost first."""
    names, block = [], gdb.block_for_pc(pc)
    while block is not None and not block.is_static and not block.is_global:
        if block.function is not None:
            names.append(block.function.print_name)
        block = block.superblock
    return names


def show_frame(library, index, pc):
    """The call is before the address that it returns to."""
    place = gdb.find_pc_line(pc - 1)
    names = functions_at(pc - 1)
    module = gdb.solib_name(pc)
    where = f" at {place.symtab.filename}:{place.line}" if place.symtab is not None else f" ({module or gdb.current_progspace().filename})"
    if not names:
        names = [gdb.execute(f"info symbol {pc - 1:#x}", to_string=True).split(" in section")[0].strip()]
    elif module is not None and module == library.objfile.filename:
        names, where = names[-1:], f" ({module})"       # what is inlined into malloc is of no interest
    inlined = "".join(f", inlined into {name}" for name in names[1:])
    print(f"#{index:<2} {pc:#018x} in {names[0]}{where}{inlined}")


class SpanguardCommand(gdb.Command):
    """What spanguard's heap holds: addr, bt, spans, quarantine, last."""

    def __init__(self):
        super().__init__("spanguard", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


class AddrCommand(gdb.Command):
    """spanguard addr ADDRESS: what lies there."""

    def __init__(self):
        super().__init__("spanguard addr", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, text, from_tty):
        address = said_address(text)
        found = object_at(address)
        if found is None:
            print(f"{address:#x} is no address of spanguard's heap")
            return
        if found.size == 0:
            print(f"{address:#x}: {found.state}")
        else:
            print(f"{address:#x} is {offset_of(address, found)} a {found.size}-byte object "
                  f"[{found.base:#x},{found.base + found.size:#x}), {found.state}")
        print(f"  {found.where}")
        if found.record is not None:
            for line in found.record.lines(found.state.startswith("freed")):
                print(f"  {line}")


class BtCommand(gdb.Command):
    """spanguard bt alloc|free ADDRESS: the stack of the allocation or free of what lies there."""

    def __init__(self):
        super().__init__("spanguard bt", gdb.COMMAND_DATA, gdb.COMPLETE_NONE)

    def invoke(self, text, from_tty):
        which, _, rest = text.partition(" ")
        if which not in ("alloc", "free") or not rest:
            raise gdb.GdbError("spanguard bt alloc|free ADDRESS")
        found = object_at(said_address(rest))
        if found is None or found.record is None:
            raise gdb.GdbError("nothing is kept of that; mode=debug or mode=guard keeps the stacks of every object")
        if which == "free" and not found.state.startswith("freed"):
            raise gdb.GdbError("it has not been freed")
        stack = found.record.stack(which)
        if not stack:
            raise gdb.GdbError("the stack has not been kept (stack_depth, depot_bytes)")
        for index, pc in enumerate(stack):
            show_frame(Library(), index, pc)


class SpansCommand(gdb.Command):
    """spanguard spans [CLASS]: every span, or those whose slots have CLASS bytes; 0 for large objects."""

    def __init__(self):
        super().__init__("spanguard spans", gdb.COMMAND_DATA, gdb.COMPLETE_NONE)

    def invoke(self, text, from_tty):
        wanted = int(text, 0) if text.strip() else None
        print(f"{'base':>16} {'bytes':>10}  {'slots':>5} {'live':>5} {'avail':>5}  {'what':22} {'state':18} owner")
        spans = [span for span in Spans(Library()).all()
                 if wanted is None or (span.large if wanted == 0 else not span.large and span.elem == wanted)]
        for span in spans:
            print(f"{span.base:16x} {span.bytes:10}  {span.slots:5} {bin(span.live()).count('1'):5} "
                  f"{int(span.p['avail_n']):5}  {span.name():22} {span.state:18} {span.owner}")
        print(f"{len(spans)} spans, {sum(span.bytes for span in spans)} bytes")


class QuarantineCommand(gdb.Command):
    """spanguard quarantine: what has been freed and is held back from reuse."""

    def __init__(self):
        super().__init__("spanguard quarantine", gdb.COMMAND_DATA, gdb.COMPLETE_NONE)

    def invoke(self, text, from_tty):
        library = Library()
        parked = [span for span in Spans(library).all() if number(span.p["state"]) == 2]
        for span in parked:
            print(f"{span.base:16x} {span.bytes:10}  {span.name():22} {'faults' if span.p['faulted'] else 'mapped'}")
        print(f"{len(parked)} spans and large objects, {sum(span.bytes for span in parked)} bytes")
        wait = library.static("debug.c", "wait")
        if wait is not None and int(wait["ring"]):
            print(f"{int(wait['tail']) - int(wait['head'])} freed slots wait, {int(wait['bytes'])} bytes (mode=debug)")
        space = library.static("guardspace.c", "space")
        if space is not None and number(space["dir"]["n"]):
            print(f"{int(space['quarantined'])} bytes of address space of freed guarded objects (mode=guard)")


class LastCommand(gdb.Command):
    """spanguard last N [ADDRESS]: the last N calls, newest first; only those about the object at ADDRESS."""

    def __init__(self):
        super().__init__("spanguard last", gdb.COMMAND_DATA, gdb.COMPLETE_NONE)

    def invoke(self, text, from_tty):
        words = text.split(None, 1)
        count = int(words[0], 0) if words else 20
        library = Library()
        ring = library.static("ring.c", "ring")
        if ring is None or not int(ring["entries"]):
            raise gdb.GdbError("no calls are kept: SPANGUARD_OPTIONS=ring=1000 keeps the last 1,000")
        only = None
        if len(words) > 1:
            found = object_at(said_address(words[1]))
            only = found.base if found is not None else said_address(words[1])
        places, newest = int(ring["places"]), number(ring["last"])
        for at in range(newest, max(0, newest - places), -1):
            entry = ring["entries"][at & (places - 1)]
            if count == 0:
                break
            if number(entry["number"]) != at or only not in (None, int(entry["addr"])):
                continue
            count -= 1
            size = f" {int(entry['bytes'])} bytes" if int(entry["bytes"]) else ""
            print(f"{at:10}  thread {int(entry['tid']):<8} {library.api_names[int(entry['api'])].string():20} "
                  f"{int(entry['addr']):#x}{size}")


for command in (SpanguardCommand, AddrCommand, BtCommand, SpansCommand, QuarantineCommand, LastCommand):
    command()
