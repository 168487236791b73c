"""What the library declares of XLA's interface is what jaxlib has."""

import ctypes
import pathlib
import re
import shutil
import subprocess
import types

import pytest

jax = pytest.importorskip("jax")

import crosspoint.jax as binding  # noqa: E402
from crosspoint import Code, CrosspointError  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
headers = pathlib.Path(__file__).resolve().parents[2] / "Sources/CCrosspoint"

#: Ours, XLA's, and the fields in their order by both names.
STRUCTS = {
    "extension": ("Extension_Base", "size=struct_size type next"),
    "version": ("Api_Version", "size=struct_size extensions=extension_start major_version minor_version"),
    "error_description": ("Error_Create_Args", "size=struct_size extensions=extension_start message code=errc"),
    "api": (
        "Api",
        "size=struct_size extensions=extension_start version=api_version internal=internal_api create_error=XLA_FFI_Error_Create",
    ),
    "buffer": ("Buffer", "size=struct_size extensions=extension_start type=dtype data rank dimensions=dims"),
    "text": ("ByteSpan", "start=ptr length=len"),
    "scalar": ("Scalar", "type=dtype value"),
    "attributes": ("Attrs", "size=struct_size extensions=extension_start count=size kinds=types names scalars=attrs"),
    "frame": (
        "CallFrame",
        "size=struct_size extensions=extension_start api context=ctx stage arguments=args results=rets attributes=attrs",
    ),
    "metadata": ("Metadata", "size=struct_size version=api_version"),
    "metadata_extension": ("Metadata_Extension", "extension=extension_base metadata"),
}
BUFFERS = [
    ("Args", "size=struct_size extensions=extension_start count=size kinds=types buffers=args"),
    ("Rets", "size=struct_size extensions=extension_start count=size kinds=types buffers=rets"),
]
CONSTANTS = {
    "UINT8": "DataType_U8",
    "BFLOAT16": "DataType_BF16",
    "SCALAR": "AttrType_SCALAR",
    "METADATA": "Extension_Metadata",
    "INTERNAL": "Error_Code_INTERNAL",
}


def compile_c(folder, source, *options):
    program = folder / "source.c"
    program.write_text(source)
    command = ["cc", "-std=c11", "-Wall", "-Werror", f"-I{headers}", f"-I{jax.ffi.include_dir()}", program, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_structs_have_the_layout_of_jaxlibs_header(tmp_path):
    structs = [(name, *of) for name, of in STRUCTS.items()] + [("buffers", *of) for of in BUFFERS]
    lines = ["#include <stdbool.h>", "#include <crosspoint_xla.h>", "#include <xla/ffi/api/c_api.h>"]
    for ours, theirs, fields in structs:
        a, b = f"crosspoint_xla_{ours}", f"XLA_FFI_{theirs}"
        for field in fields.split():
            x, y = (field.split("=") * 2)[:2]
            claims = f"offsetof({a}, {x}) == offsetof({b}, {y})", f"sizeof((({a} *)0)->{x}) == sizeof((({b} *)0)->{y})"
            # A frame may have grown at its end; it is not we who make one.
            lines += [f'_Static_assert({claim}, "{ours}.{x}");' for claim in claims]
        header = (headers / "crosspoint_xla.h").read_text()
        declared = re.search(rf"typedef struct {a} {{(.*?)}} {a};", header, re.S).group(1)
        assert len(re.findall(r";", re.sub(r"/\*.*?\*/", "", declared, flags=re.S))) == len(fields.split()), ours
    lines += [f'_Static_assert((int)CROSSPOINT_XLA_{a} == (int)XLA_FFI_{b}, "{a}");' for a, b in CONSTANTS.items()]
    lines += ['_Static_assert(CROSSPOINT_XLA_MAJOR == XLA_FFI_API_MAJOR, "version");']
    lines += ['_Static_assert(CROSSPOINT_XLA_MINOR <= XLA_FFI_API_MINOR, "version");']
    outcome = compile_c(tmp_path, "\n".join(lines) + "\n", "-c", "-o", "layout.o")
    assert outcome.returncode == 0, outcome.stderr


def test_a_version_that_xla_does_not_know_is_a_typed_error(tmp_path, monkeypatch):
    names = [f"crosspoint_xla_{name}" for name in ("dispatch", "combine", "combine_backward", "dispatch_backward")]
    source = "#include <crosspoint_xla.h>\n" + "".join(
        f"""crosspoint_xla_error *{name}(crosspoint_xla_frame *frame) {{
              ((crosspoint_xla_metadata_extension *)frame->extensions)->metadata->version.major_version = 77;
              return NULL;
            }}\n"""
        for name in names
    )
    outcome = compile_c(tmp_path, source, "-shared", "-fPIC", "-o", "fake.so")
    assert outcome.returncode == 0, outcome.stderr
    fake = ctypes.CDLL(str(tmp_path / "fake.so"))
    monkeypatch.setattr(binding, "library", types.SimpleNamespace(**{name: getattr(fake, name) for name in names}))
    cause = f"crosspoint.jax: invalid_argument: jax: {re.escape(jax.__version__)}.*77"
    with pytest.raises(CrosspointError, match=cause) as caught:
        binding._register()
    assert caught.value.code == Code.INVALID_ARGUMENT
