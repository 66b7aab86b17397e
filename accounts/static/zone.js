// No header tells in which time zone somebody reads: from the next page on this cookie does (accounts/languages.py).
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `time_zone=${encodeURIComponent(zone)}; path=/; max-age=34560000; samesite=lax${secure}`;
}
