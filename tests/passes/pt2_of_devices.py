"""Archives of torch.export that name another device, made of those of the processor."""

import io
import re
import zipfile


def of_device(archive: bytes, device: str) -> bytes:
    """An archive as that of another device would be, but for its example inputs."""
    named, buffer = f'"type": "{device}", "index": 0'.encode(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".json"):
                data = re.sub(rb'"type":\s*"cpu",\s*"index":\s*null', named, data)
            copy.writestr(name, data)
    return buffer.getvalue()
