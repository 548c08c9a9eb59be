# SPDX-License-Identifier: GPL-2.0-or-later
#
# Checks that every #include "layer/file.h" in src/ and cli/ names the file's own layer or one that
# the table of CMakeLists.txt allows it.
#   cmake -D TABLE=layers.txt -D SOURCE=<project> -P layers.cmake
cmake_minimum_required(VERSION 3.25)
file(STRINGS ${TABLE} rows)
set(layers "")
foreach(row IN LISTS rows)
  string(REGEX MATCH "^([a-z]+): ?(.*)$" _ "${row}")
  set(layer ${CMAKE_MATCH_1})
  string(REPLACE " " ";" allowed_${layer} "${CMAKE_MATCH_2}")
  list(APPEND layers ${layer})
endforeach()
# moat/moat.h is the public header.
set(allowed_cli client proto base moat)
list(APPEND allowed_client moat)

set(wrong 0)
function(check_folder layer folder)
  file(GLOB files ${folder}/*.c ${folder}/*.h)
  foreach(file IN LISTS files)
    file(STRINGS ${file} includes REGEX "^#[ ]*include \"[^\"]*/")
    foreach(line IN LISTS includes)
      string(REGEX REPLACE "^#[ ]*include \"([^\"/]*)/.*$" "\\1" target "${line}")
      if(NOT target STREQUAL layer AND NOT target IN_LIST allowed_${layer})
        file(RELATIVE_PATH path ${SOURCE} ${file})
        message("${path}: ${line} points upward or sideways (may use: ${allowed_${layer}})")
        math(EXPR wrong "${wrong} + 1")
      endif()
    endforeach()
  endforeach()
  set(wrong ${wrong} PARENT_SCOPE)
endfunction()

foreach(layer IN LISTS layers)
  check_folder(${layer} ${SOURCE}/src/${layer})
endforeach()
check_folder(cli ${SOURCE}/cli)
if(wrong)
  message(FATAL_ERROR "${wrong} includes break the layering")
endif()
