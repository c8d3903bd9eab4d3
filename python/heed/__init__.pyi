# SPDX-License-Identifier: MIT
from typing import Any, List, Optional, Sequence, Union

from ._attention import Context as Context, Device as Device, Report as Report, Window
from ._library import (BuildFailed as BuildFailed, DeviceFailed as DeviceFailed, DeviceNotFound as DeviceNotFound, Forked as Forked,
                       HeedError as HeedError, InvalidArgument as InvalidArgument, Mismatch as Mismatch, OutOfBounds as OutOfBounds,
                       OutOfMemory as OutOfMemory, Unsupported as Unsupported)

__version__: str

def attention(q: Any, k: Any, v: Any, *, mask: Any = None, causal: Union[bool, str] = False, scale: Optional[float] = None,
              bias: Any = None, window: Window = None, softcap: float = 0.0, alibi: Any = None, sinks: Any = None,
              kv_lens: Optional[Sequence[int]] = None, q_position: Union[None, int, Sequence[int]] = None, k_scale: Any = None,
              v_scale: Any = None, lse: bool = False, weights: bool = False, weight_heads: Optional[Sequence[int]] = None,
              weight_rows: Optional[int] = None, key_sums: Union[bool, str] = False, out: Any = None, layout: str = "bhld",
              device: Union[str, int, Device] = "cpu") -> Any: ...
def check(q: Any, k: Any, v: Any, *, mask: Any = None, causal: Union[bool, str] = False, scale: Optional[float] = None,
          bias: Any = None, window: Window = None, softcap: float = 0.0, alibi: Any = None, sinks: Any = None,
          kv_lens: Optional[Sequence[int]] = None, q_position: Union[None, int, Sequence[int]] = None, k_scale: Any = None,
          v_scale: Any = None, layout: str = "bhld", device: Union[str, int, Device] = "cpu", kernel: Optional[str] = None) -> Report: ...
def devices() -> List[Device]: ...
