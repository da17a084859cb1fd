"""WebDAV at /dav: the archive as a folder of a desktop, read-only. See docs/http/webdav.md."""
